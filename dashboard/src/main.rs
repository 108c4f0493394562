//! The dashboard: for teams that deploy apps. It knows HTTP and JSON, and nothing else of Slipway.

mod api;
mod components;
mod model;
mod pages;
mod session;

use leptos::prelude::*;
use leptos_router::components::{A, Route, Router, Routes};
use leptos_router::path;
use session::Session;

fn main() {
    console_error_panic_hook::set_once();
    leptos::mount::mount_to_body(App);
}

#[component]
fn App() -> impl IntoView {
    let session = Session::provide();
    view! {
        <Router>
            <Show when=move || session.token().is_some() fallback=pages::sign_in::SignIn>
                <Bar/>
                <main>
                    <Routes fallback=|| view! { <components::Empty title="There is no such page" hint="The bar above leads back."/> }>
                        <Route path=path!("/") view=pages::apps::Apps/>
                        <Route path=path!("/ui/apps/:namespace/:name") view=pages::app::App/>
                        <Route path=path!("/ui/deploy") view=pages::deploy::Deploy/>
                        <Route path=path!("/ui/nodes") view=pages::nodes::Nodes/>
                        <Route path=path!("/ui/sign-in") view=pages::apps::Apps/>
                    </Routes>
                </main>
            </Show>
        </Router>
    }
}

#[component]
fn Bar() -> impl IntoView {
    let session = session::session();
    view! {
        <header class="bar">
            <A href="/" attr:class="brand"><span class="mark" aria-hidden="true"></span>"Slipway"</A>
            <nav>
                <A href="/" exact=true>"Apps"</A>
                <A href="/ui/nodes">"Nodes"</A>
            </nav>
            <span class="grow"></span>
            <A href="/ui/deploy" attr:class="button primary" attr:id="deploy">"Deploy an app"</A>
            <button class="button quiet" on:click=move |_| session.sign_out()>"Sign out"</button>
        </header>
    }
}
