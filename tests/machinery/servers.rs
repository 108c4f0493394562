//! What a server says of itself.

use slipway_tests::TestServer;

/// `[sig-api-machinery] server version should find the server version [Conformance]`
#[tokio::test]
async fn the_version_is_of_numbers() {
    let server = TestServer::memory().await;
    let version = server.get("/version").await.expect(200);
    assert!(version["major"].as_str().unwrap().parse::<u32>().is_ok(), "{version}");
    // Some write `37+`.
    let minor: String = version["minor"].as_str().unwrap().chars().filter(char::is_ascii_digit).collect();
    assert!(minor.parse::<u32>().is_ok(), "{version}");
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1."));
}

/// `[sig-api-machinery] Discovery should validate PreferredVersion for each APIGroup [Conformance]`
#[tokio::test]
async fn each_group_has_its_preferred_version_and_resources() {
    let server = TestServer::memory().await;
    let list = server.get("/apis/").await.expect(200);
    let groups = list["groups"].as_array().unwrap();
    assert!(groups.len() > 10);
    for group in groups {
        let name = group["name"].as_str().unwrap();
        let one = server.get(&format!("/apis/{name}/")).await.expect(200);
        assert_eq!(one["name"], name);
        let preferred = &one["preferredVersion"]["groupVersion"];
        assert!(one["versions"].as_array().unwrap().iter().any(|version| version["groupVersion"] == *preferred), "{name}");
        let resources = server.get(&format!("/apis/{}", preferred.as_str().unwrap())).await.expect(200);
        assert_eq!(resources["groupVersion"], *preferred);
        assert!(!resources["resources"].as_array().unwrap().is_empty(), "{name}");
    }
}

/// "health handlers should contain necessary checks".
#[tokio::test]
async fn health_is_told() {
    let server = TestServer::memory().await;
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(server.bytes(path).await, "ok", "{path}");
        let verbose = server.bytes(&format!("{path}?verbose=1")).await;
        let verbose = String::from_utf8_lossy(&verbose);
        assert!(verbose.contains("[+]ping ok"), "{path}: {verbose}");
    }
}
