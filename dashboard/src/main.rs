//! The dashboard: for teams that deploy apps. It knows HTTP and JSON, and nothing else of Slipway.

mod api;
mod components;
mod live;
mod pages;
mod reach;
mod session;

use components::Empty;
use leptos::prelude::*;
use leptos_router::components::{A, Route, Router, Routes};
use leptos_router::path;
use session::{Session, State};

fn main() {
    console_error_panic_hook::set_once();
    leptos::mount::mount_to_body(App);
}

#[component]
fn App() -> impl IntoView {
    let session = Session::provide();
    components::Clock::provide();
    view! {
        <Router>
            {move || match session.state() {
                State::Opening => view! { <pages::sign_in::Opening/> }.into_any(),
                State::Out => view! { <pages::sign_in::SignIn/> }.into_any(),
                State::In(_) => view! { <Shell/> }.into_any(),
            }}
        </Router>
    }
}

/// What surrounds every page of somebody who is signed in.
#[component]
fn Shell() -> impl IntoView {
    reach::provide();
    live::Connection::provide();
    session::session().learn_user();
    view! {
        <Bar/>
        <Lost/>
        <main>
            <Routes fallback=|| view! { <Empty title="There is no such page" hint="The bar above leads back."/> }>
                <Route path=path!("/") view=pages::apps::Apps/>
                <Route path=path!("/ui/sign-in") view=pages::apps::Apps/>
                <Route path=path!("/ui/apps/:namespace/:name") view=pages::app::App/>
                <Route path=path!("/ui/deploy") view=pages::deploy::Deploy/>
                <Route path=path!("/ui/nodes") view=pages::nodes::Nodes/>
            </Routes>
        </main>
    }
}

#[component]
fn Bar() -> impl IntoView {
    let session = session::session();
    view! {
        <header class="bar">
            <A href="/" attr:class="brand" attr:aria-label="Slipway"><components::Mark/><span>"Slipway"</span></A>
            <nav aria-label="Pages">
                <A href="/" exact=true>"Apps"</A>
                <A href="/ui/nodes">"Nodes"</A>
            </nav>
            <span class="grow"></span>
            <A href="/ui/deploy" attr:class="button primary" attr:id="deploy">"Deploy an app"</A>
            <div class="account">
                <span class="user" id="user" title=move || session.user()>{move || session.user()}</span>
                <button class="button quiet" id="sign-out" on:click=move |_| session.sign_out()>"Sign out"</button>
            </div>
        </header>
    }
}

/// Said while nothing new arrives: what the page shows may be old.
#[component]
fn Lost() -> impl IntoView {
    let connection = live::connection();
    move || {
        connection.is_lost().then(|| {
            view! { <div class="lost" role="status">"The cluster does not answer. What you see may be old; trying again…"</div> }
        })
    }
}
