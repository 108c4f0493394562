//! Deploying an app from a form, and seeing it through until its address answers.

use crate::api;
use crate::components::{Card, Field, Head, Problem};
use crate::model::{self, Wish};
use crate::session::{Session, session};
use leptos::prelude::*;
use leptos_router::hooks::use_navigate;

#[derive(Clone, Copy)]
struct Form {
    namespace: RwSignal<String>,
    name: RwSignal<String>,
    image: RwSignal<String>,
    port: RwSignal<String>,
    replicas: RwSignal<String>,
    expose: RwSignal<String>,
}

impl Form {
    fn new() -> Self {
        let text = |value: &str| RwSignal::new(value.to_owned());
        Form {
            namespace: text("default"),
            name: text(""),
            image: text(""),
            port: text("8080"),
            replicas: text("2"),
            expose: text("NodePort"),
        }
    }

    fn wish(self) -> Result<Wish, String> {
        let trimmed = |value: RwSignal<String>| value.get_untracked().trim().to_owned();
        let port = match trimmed(self.port).as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| "The port is a number from 1 to 65535.".to_owned())?),
        };
        let replicas = trimmed(self.replicas).parse().map_err(|_| "The number of copies is a number.".to_owned())?;
        let wish = Wish {
            namespace: trimmed(self.namespace),
            name: trimmed(self.name),
            image: trimmed(self.image),
            port,
            replicas,
            expose: trimmed(self.expose),
        };
        if wish.name.is_empty() || wish.image.is_empty() {
            return Err("An app needs a name and an image.".into());
        }
        if !wish.expose.is_empty() && wish.port.is_none() {
            return Err("To be reachable, an app needs the port that it listens on.".into());
        }
        Ok(wish)
    }
}

#[component]
pub fn Deploy() -> impl IntoView {
    let (session, form, navigate) = (session(), Form::new(), use_navigate());
    let problem = RwSignal::new(None::<String>);
    let busy = RwSignal::new(false);
    let submit = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        let wish = match form.wish() {
            Ok(wish) => wish,
            Err(why) => return problem.set(Some(why)),
        };
        problem.set(None);
        busy.set(true);
        let navigate = navigate.clone();
        leptos::task::spawn_local(async move {
            match create(session, &wish).await {
                Ok(()) => navigate(&format!("/ui/apps/{}/{}", wish.namespace, wish.name), Default::default()),
                Err(message) => problem.set(Some(message)),
            }
            busy.set(false);
        });
    };
    view! {
        <Head title="Deploy an app"/>
        <Card>
            <form class="form" on:submit=submit>
                <Field label="Name" id="name" value=form.name hint="Lower-case letters, digits and hyphens"/>
                <Field label="Image" id="image" value=form.image hint="As registry.example.com/team/app:1.2"/>
                <div class="pair">
                    <Field label="Port" id="port" value=form.port hint="What the app listens on; empty: none"/>
                    <Field label="Copies" id="replicas" value=form.replicas/>
                </div>
                <div class="pair">
                    <label class="field" for="expose">
                        <span>"Reachable"</span>
                        <select id="expose" on:change=move |event| form.expose.set(event_target_value(&event))>
                            <option value="NodePort">"on a port of every node"</option>
                            <option value="LoadBalancer">"through a load balancer"</option>
                            <option value="ClusterIP">"inside the cluster"</option>
                            <option value="">"not at all"</option>
                        </select>
                    </label>
                    <Field label="Namespace" id="namespace" value=form.namespace/>
                </div>
                <Problem message=problem.into()/>
                <button class="button primary" type="submit" id="submit" disabled=move || busy.get()>"Deploy"</button>
            </form>
        </Card>
    }
}

/// The Service first: if it is refused, nothing runs. If the Deployment is refused, the Service is taken back.
async fn create(session: Session, wish: &Wish) -> Result<(), String> {
    let services = format!("/api/v1/namespaces/{}/services", wish.namespace);
    let deployments = format!("/apis/apps/v1/namespaces/{}/deployments", wish.namespace);
    let service = model::service(wish);
    if let Some(service) = &service {
        api::request(session, "POST", &services, Some(service)).await.map_err(|failure| failure.message)?;
    }
    if let Err(failure) = api::request(session, "POST", &deployments, Some(&model::deployment(wish))).await {
        if service.is_some() {
            let _ = api::request(session, "DELETE", &format!("{services}/{}", wish.name), None).await;
        }
        return Err(failure.message);
    }
    Ok(())
}
