//! The dashboard, as a person uses it: in a browser, against a real cluster.

use crate::browser::{Browser, installed};
use crate::cluster::{Cluster, enabled, http_get, shared};
use serde_json::json;

const IMAGE: &str = "registry.slipway.test/web:1";
/// No registry of this name exists, so its images can't be pulled.
const NO_IMAGE: &str = "registry.invalid/nothing:1";

fn can_run(test: &str) -> bool {
    enabled(test) && installed(test)
}

fn address(cluster: &Cluster, path: &str) -> String {
    format!("https://{}{path}", cluster.listen)
}

fn fill_form(browser: &Browser, namespace: &str, name: &str, image: &str) {
    browser.click("#deploy");
    browser.fill("#name", name);
    browser.fill("#namespace", namespace);
    browser.fill("#image", image);
    browser.fill("#replicas", "1");
}

/// Nothing in the page may have panicked or been refused by its own policy. That requests fail is part of the test.
fn assert_no_complaint(browser: &Browser) {
    let console = browser.console();
    let bad = ["panicked", "Content Security Policy", "unreachable"];
    assert!(!bad.iter().any(|bad| console.contains(bad)), "{console}");
}

#[test]
fn an_app_is_deployed_watched_scaled_and_deleted_in_the_browser() {
    if !can_run("dashboard") {
        return;
    }
    let cluster = shared("dashboard");
    let browser = Browser::start();
    sign_in_by_link(&cluster, &browser);
    is_small_and_kept(&browser);

    refuses_mistakes(&browser);
    deploy_until_it_answers(&cluster, &browser);
    follow_its_log(&browser);
    scale(&cluster, &browser);
    tell_apart_from_an_app_of_a_longer_name(&cluster, &browser);
    tell_why_an_app_cannot_start(&browser);
    delete(&cluster, &browser);

    browser.click("nav a[href='/ui/nodes']");
    browser.wait_for_text("tr[data-node='node-1']", "Ready");
    assert_no_complaint(&browser);

    let token = browser.run("return localStorage.getItem('slipway-token')", json!([]));
    browser.click("#sign-out");
    browser.wait_for_text("#sign-in", "Sign in");
    browser.fill("#token", token.as_str().unwrap());
    browser.click("#sign-in");
    browser.wait_for_text(".problem", "not accepted");
}

/// The link signs in once, and leaves nothing in the address.
fn sign_in_by_link(cluster: &Cluster, browser: &Browser) {
    let link = std::fs::read_to_string(cluster.data_dir.join("dashboard-link")).unwrap();
    browser.goto(link.trim());
    browser.wait_for_text("#user", "kubernetes-admin");
    assert_eq!(browser.url(), address(cluster, "/"));
    // Pasted again into the open tab: of no use, and no harm.
    browser.run("location.hash = arguments[0]", json!([link.trim().split_once('#').unwrap().1]));
    browser.wait("the code to leave the address", || browser.url() == address(cluster, "/"));
    browser.wait_for_text("#user", "kubernetes-admin");
}

fn is_small_and_kept(browser: &Browser) {
    let loaded = browser.run(
        "const [entry] = performance.getEntriesByType('resource').filter((entry) => entry.name.endsWith('.wasm'));
         return fetch(entry.name).then((answer) => ({
           sent: entry.encodedBodySize, size: entry.decodedBodySize, type: answer.headers.get('content-type'),
           encoding: answer.headers.get('content-encoding'), kept: answer.headers.get('cache-control') }))",
        json!([]),
    );
    assert_eq!((&loaded["type"], &loaded["encoding"]), (&json!("application/wasm"), &json!("br")), "{loaded}");
    assert!(loaded["kept"].as_str().unwrap().contains("immutable"), "{loaded}");
    let (sent, size) = (loaded["sent"].as_u64().unwrap(), loaded["size"].as_u64().unwrap());
    assert!(sent > 0 && sent * 2 < size && sent < 400_000, "{loaded}");
}

fn refuses_mistakes(browser: &Browser) {
    fill_form(browser, "dashboard", "Not a name", "");
    browser.fill("#port", "70000");
    browser.click("#submit");
    browser.wait_for_text("#name-hint", "Lower-case letters");
    browser.wait_for_text("#image-hint", "Which image");
    browser.wait_for_text("#port-hint", "from 1 to 65535");
    assert_eq!(browser.property("#name", "ariaInvalid"), "true");
    // What only the API knows is told in its words, and nothing is left behind.
    fill_form(browser, "no-such-namespace", "web", IMAGE);
    browser.fill("#port", "8080");
    browser.click("#submit");
    browser.wait_for_text(".problem", "namespaces \"no-such-namespace\" not found");
}

fn deploy_until_it_answers(cluster: &Cluster, browser: &Browser) {
    fill_form(browser, "dashboard", "web", IMAGE);
    browser.click("#submit");
    browser.wait("the app's page", || browser.url() == address(cluster, "/ui/apps/dashboard/web"));
    browser.wait_for_text("#state", "Running");
    browser.wait_for_text("#answer", "Answers");
    let link = browser.property("#address a", "href");
    let host = link.trim_start_matches("http://").trim_end_matches('/');
    assert!(http_get(host, "/log/written-for-the-dashboard").is_ok(), "{link}");
    assert_eq!(cluster.get("service/web", "{.metadata.ownerReferences[0].kind}"), "Deployment");

    browser.click(".brand");
    browser.wait_for_text("tr[data-app='web']", "Running");
    assert_eq!(browser.property("tr[data-app='web'] a.address", "href"), link);
    browser.click("tr[data-app='web'] a");
}

fn follow_its_log(browser: &Browser) {
    browser.wait_for_text("#log", "written-for-the-dashboard");
    let link = browser.property("#address a", "href");
    http_get(link.trim_start_matches("http://").trim_end_matches('/'), "/log/and-another-line").unwrap();
    browser.wait_for_text("#log", "and-another-line");
}

fn scale(cluster: &Cluster, browser: &Browser) {
    browser.click("#more");
    browser.wait_for_text("#copies", "2");
    browser.wait("two ready pods", || browser.text("#pods").matches("Ready").count() == 2);
    assert_eq!(cluster.get("deployment/web", "{.spec.replicas}"), "2");
    browser.wait_for_text("#events", "ScalingReplicaSet");
    browser.wait_for_text("#events", "Started");
    browser.click("#fewer");
    browser.wait("one pod", || browser.count("#pods tr") == 1);
}

fn tell_apart_from_an_app_of_a_longer_name(cluster: &Cluster, browser: &Browser) {
    cluster.ok(&["create", "deployment", "web-admin", "--image", IMAGE]);
    cluster.wait_for("deployment/web-admin", "{.status.readyReplicas}", "1");
    // It is in the list by itself: the list is live.
    browser.click(".brand");
    browser.wait_for_text("tr[data-app='web-admin']", "Running");
    browser.click("tr[data-app='web'] a");
    browser.wait_for_text("#events", "Started");
    assert!(!browser.text("main").contains("web-admin"), "{}", browser.text("main"));
}

fn tell_why_an_app_cannot_start(browser: &Browser) {
    fill_form(browser, "dashboard", "broken", NO_IMAGE);
    browser.click("#expose-None");
    browser.click("#submit");
    browser.wait_for_text("#pods", "ImagePullBackOff");
    browser.wait_for_text("#state", "Failing");
    browser.wait_for_text("#state", "ImagePullBackOff");
    browser.wait_for_text("#events", "Failed");
    browser.click(".brand");
    browser.wait_for_text("tr[data-app='broken']", "ImagePullBackOff");
}

/// What the form made goes, the Service too.
fn delete(cluster: &Cluster, browser: &Browser) {
    browser.click("tr[data-app='web'] a");
    browser.click("#delete");
    browser.click("#confirm");
    browser.wait("the list", || browser.url() == address(cluster, "/"));
    browser.wait("the app to go", || browser.count("tr[data-app='web']") == 0 && browser.count("tr[data-app='broken']") == 1);
    cluster.wait("everything to go", || {
        cluster.get("deployment,service,replicaset,pod", "{.items[*].metadata.labels.app}").split(' ').all(|app| app != "web")
    });
    browser.goto(&address(cluster, "/ui/apps/dashboard/web"));
    browser.wait_for_text(".empty", "There is no app web");
    browser.click(".empty a");
}

#[test]
fn who_signs_in_by_a_token_sees_what_its_rights_allow() {
    if !can_run("dashboard's tokens") {
        return;
    }
    let cluster = shared("dashboard-tokens");
    cluster.ok(&["create", "deployment", "seen", "--image", IMAGE]);
    let browser = Browser::start();
    browser.goto(&address(&cluster, "/ui/sign-in#code=never-issued"));
    browser.wait_for_text(".problem", "used before, or is too old");
    browser.fill("#token", "no-token-at-all");
    browser.click("#sign-in");
    browser.wait_for_text(".problem", "This token was not accepted");
    assert_eq!(browser.run("return localStorage.length", json!([])), 0);

    let account = "--serviceaccount=dashboard-tokens:default";
    cluster.ok(&["create", "rolebinding", "view", "--clusterrole=view", account]);
    let token = cluster.ok(&["create", "token", "default"]);
    browser.fill("#token", token.trim());
    browser.click("#sign-in");
    browser.wait_for_text("#user", "system:serviceaccount:dashboard-tokens:default");
    browser.wait_for_text(".empty", "cannot list resource \"deployments\"");
    browser.click("nav a[href='/ui/nodes']");
    browser.wait_for_text(".empty", "cannot list resource \"nodes\"");

    // In its own namespace it may view, and no more.
    browser.goto(&address(&cluster, "/?namespace=dashboard-tokens"));
    browser.wait_for_text("tr[data-app='seen']", "seen");
    browser.click("tr[data-app='seen'] a");
    browser.wait_for_text("#state", "Running");
    browser.click("#more");
    browser.wait_for_text(".problem", "cannot patch resource \"deployments\"");
    fill_form(&browser, "dashboard-tokens", "wanted", IMAGE);
    browser.click("#submit");
    browser.wait_for_text(".problem", "cannot create resource \"deployments\"");
    assert_no_complaint(&browser);
}
