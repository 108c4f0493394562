//! Deploying an app from a form. Its page then sees it through until it answers.

use crate::api::{self, Failure};
use crate::components::{Card, Field, Head, Problem};
use crate::live::live;
use crate::session::{Session, session};
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::components::A;
use leptos_router::hooks::use_navigate;
use slipway_dashboard_model::{self as model, Draft, Expose, Wish};

#[derive(Clone, Copy)]
struct Form {
    namespace: RwSignal<String>,
    name: RwSignal<String>,
    image: RwSignal<String>,
    port: RwSignal<String>,
    replicas: RwSignal<String>,
    expose: RwSignal<Expose>,
}

impl Form {
    fn new() -> Self {
        let text = |value: &str| RwSignal::new(value.to_owned());
        let (namespace, name, image, port, replicas) = (text("default"), text(""), text(""), text("8080"), text("2"));
        Form { namespace, name, image, port, replicas, expose: RwSignal::new(Expose::NodePort) }
    }

    fn draft(self) -> Draft {
        Draft {
            namespace: self.namespace.get(),
            name: self.name.get(),
            image: self.image.get(),
            port: self.port.get(),
            replicas: self.replicas.get(),
            expose: self.expose.get(),
        }
    }
}

#[component]
pub fn Deploy() -> impl IntoView {
    let (session, form, navigate) = (session(), Form::new(), use_navigate());
    let (problem, busy) = (RwSignal::new(None::<String>), RwSignal::new(false));
    // Nobody is told of mistakes before having tried.
    let tried = RwSignal::new(false);
    let checked = Memo::new(move |_| form.draft().check());
    let mistake = move |field: &'static str| {
        Signal::derive(move || if tried.get() { checked.get().err().and_then(|mistakes| mistakes.of(field)) } else { None })
    };
    let submit = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        tried.set(true);
        problem.set(None);
        let Ok(wish) = checked.get_untracked() else { return };
        busy.set(true);
        let navigate = navigate.clone();
        spawn_local(async move {
            match create(session, &wish).await {
                Ok(()) => navigate(&format!("/ui/apps/{}/{}", wish.namespace, wish.name), Default::default()),
                Err(failure) => {
                    problem.try_set(Some(failure.message));
                    busy.try_set(false);
                }
            }
        });
    };
    view! {
        <Head title="Deploy an app"/>
        <Card>
            <form class="form" novalidate on:submit=submit>
                <div class="pair">
                    <Field label="Name" id="name" value=form.name hint="Lower-case letters, digits and hyphens" mistake=mistake("name")/>
                    <Namespace value=form.namespace mistake=mistake("namespace")/>
                </div>
                <Field label="Image" id="image" value=form.image hint="As registry.example.com/team/app:1.2" mistake=mistake("image")/>
                <div class="pair">
                    <Field label="Port" id="port" value=form.port hint="What the app listens on" mistake=mistake("port")/>
                    <Field label="Copies" id="replicas" value=form.replicas hint="How many pods run it" mistake=mistake("replicas")/>
                </div>
                <Exposure value=form.expose/>
                <Problem message=problem.into()/>
                <div class="actions">
                    <button class="button primary" type="submit" id="submit" disabled=move || busy.get()>
                        {move || if busy.get() { "Deploying…" } else { "Deploy" }}
                    </button>
                    <A href="/" attr:class="button quiet">"Cancel"</A>
                </div>
            </form>
        </Card>
    }
}

/// Any name may be entered; those that can be seen are suggested.
#[component]
fn Namespace(value: RwSignal<String>, mistake: Signal<Option<String>>) -> impl IntoView {
    let namespaces = live("/api/v1/namespaces".into());
    let options = move || {
        let option = |name: &str| view! { <option value=name.to_owned()></option> };
        namespaces.with(|all| all.values().map(|namespace| option(model::name(namespace))).collect::<Vec<_>>())
    };
    view! {
        <Field label="Namespace" id="namespace" value=value suggestions="namespaces" hint="Where your team's apps live" mistake=mistake/>
        <datalist id="namespaces">{options}</datalist>
    }
}

#[component]
fn Exposure(value: RwSignal<Expose>) -> impl IntoView {
    let choice = move |expose: Expose| {
        let (title, hint) = match expose {
            Expose::NodePort => ("A port of every node", "People inside your network open it by a node's address."),
            Expose::LoadBalancer => ("A load balancer", "The cloud makes one with an address of its own."),
            Expose::ClusterIp => ("Inside the cluster", "Other apps call it by its name."),
            Expose::Not => ("Not at all", "It works without being asked."),
        };
        view! {
            <label class="choice">
                <input type="radio" name="expose" id=format!("expose-{}", expose.as_str()) prop:checked=move || value.get() == expose
                    on:change=move |_| value.set(expose)/>
                <span><strong>{title}</strong><small class="dim">{hint}</small></span>
            </label>
        }
    };
    view! {
        <fieldset class="choices"><legend>"Reachable through"</legend>{Expose::ALL.map(choice).into_iter().collect::<Vec<_>>()}</fieldset>
    }
}

/// Everything is tried out before anything is made. The Service comes second and belongs to the Deployment; if it is
/// refused after all, the Deployment is taken back.
async fn create(session: Session, wish: &Wish) -> Result<(), Failure> {
    let services = format!("/api/v1/namespaces/{}/services", wish.namespace);
    let deployments = format!("/apis/apps/v1/namespaces/{}/deployments", wish.namespace);
    let deployment = model::deployment(wish);
    api::request(session, "POST", &format!("{deployments}?dryRun=All"), Some(&deployment)).await?;
    if let Some(service) = model::service(wish, None) {
        api::request(session, "POST", &format!("{services}?dryRun=All"), Some(&service)).await?;
    }
    let made = api::request(session, "POST", &deployments, Some(&deployment)).await?;
    let Some(service) = model::service(wish, Some(&made)) else { return Ok(()) };
    let Err(failure) = api::request(session, "POST", &services, Some(&service)).await else { return Ok(()) };
    match api::request(session, "DELETE", &format!("{deployments}/{}", wish.name), None).await {
        Ok(_) => Err(failure),
        Err(left) => {
            let message =
                format!("{} The app runs without its Service, and could not be taken back: {}", failure.message, left.message);
            Err(Failure { message, ..failure })
        }
    }
}
