//! Who is signed in: a bearer token, kept in the browser until it is signed out or refused.

use crate::api::{self, Failure};
use leptos::prelude::*;
use leptos::task::spawn_local;
use serde_json::{Value, json};
use slipway_dashboard_model as model;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};

const KEY: &str = "slipway-token";
/// Where a one-time link carries its code: in the fragment, which no server sees or logs.
const CODE: &str = "#code=";

#[derive(Clone, PartialEq)]
pub enum State {
    /// A one-time link is being redeemed.
    Opening,
    Out,
    In(String),
}

#[derive(Clone, Copy)]
pub struct Session {
    state: Memo<State>,
    set_state: WriteSignal<State>,
    user: RwSignal<String>,
    /// Why somebody has to sign in (again).
    notice: RwSignal<Option<String>>,
}

impl Session {
    /// Must come before the router, which should not see a link's code.
    pub fn provide() -> Self {
        let known = storage().and_then(|storage| storage.get_item(KEY).ok().flatten());
        let (read, set_state) = signal(known.map_or(State::Out, State::In));
        let state = Memo::new(move |_| read.get());
        let session = Session { state, set_state, user: RwSignal::new(String::new()), notice: RwSignal::new(None) };
        provide_context(session);
        session.redeem_link();
        // A link that is pasted into an open tab changes no more than the fragment.
        let pasted = Closure::<dyn Fn()>::new(move || session.redeem_link());
        if let Some(window) = web_sys::window() {
            let _ = window.add_event_listener_with_callback("hashchange", pasted.as_ref().unchecked_ref());
        }
        pasted.forget();
        session
    }

    pub fn state(self) -> State {
        self.state.get()
    }

    pub fn token(self) -> Option<String> {
        match self.state.get_untracked() {
            State::In(token) => Some(token),
            State::Opening | State::Out => None,
        }
    }

    pub fn user(self) -> String {
        self.user.get()
    }

    pub fn notice(self) -> Option<String> {
        self.notice.get()
    }

    /// Signs in with a token, if the API knows it.
    pub async fn sign_in(self, token: &str) -> Result<(), Failure> {
        let user = whoami(token).await?;
        self.user.set(user);
        self.keep(token);
        Ok(())
    }

    fn keep(self, token: &str) {
        if let Some(storage) = storage() {
            let _ = storage.set_item(KEY, token);
        }
        self.notice.set(None);
        self.set_state.set(State::In(token.to_owned()));
    }

    fn forget(self) {
        if let Some(storage) = storage() {
            let _ = storage.remove_item(KEY);
        }
        self.user.set(String::new());
        self.set_state.set(State::Out);
    }

    pub fn sign_out(self) {
        if let Some(token) = self.token() {
            // The session ends at the server too; a token that is no session of ours stays what it is.
            spawn_local(async move { _ = api::answer(Some(&token), "DELETE", "/dashboard/session", None).await });
        }
        self.notice.set(None);
        self.forget();
    }

    /// The API refused the token that was used.
    pub fn refused(self, used: &str) {
        if self.token().as_deref() == Some(used) {
            self.notice.set(Some("Your session has ended. Please sign in again.".into()));
            self.forget();
        }
    }

    /// Asks for the name of who is signed in, to show it.
    pub fn learn_user(self) {
        let Some(token) = self.token() else { return };
        spawn_local(async move {
            match whoami(&token).await {
                Ok(user) => self.user.set(user),
                Err(failure) if failure.code == 401 => self.refused(&token),
                Err(_) => {}
            }
        });
    }

    /// If the address carries a one-time code: takes it out, and signs in by it. Who was signed in before stays so if
    /// the code is of no use.
    fn redeem_link(self) {
        let Some(code) = take_code() else { return };
        let before = self.state.get_untracked();
        self.set_state.set(State::Opening);
        spawn_local(async move {
            let body = json!({"code": code});
            match api::answer(None, "POST", "/dashboard/session", Some(&body)).await {
                Ok(answer) => self.keep(model::text(&answer, "/token")),
                Err(_) if matches!(before, State::In(_)) => self.set_state.set(before),
                Err(failure) => {
                    self.notice.set(Some(match failure.code {
                        401 => "This link was used before, or is too old. Sign in with a token instead.".into(),
                        _ => failure.message,
                    }));
                    self.set_state.set(State::Out);
                }
            }
        });
    }
}

pub fn session() -> Session {
    expect_context::<Session>()
}

async fn whoami(token: &str) -> Result<String, Failure> {
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer: Value = api::answer(Some(token), "POST", path, Some(&review)).await?;
    Ok(model::text(&answer, "/status/userInfo/username").to_owned())
}

fn take_code() -> Option<String> {
    let window = web_sys::window()?;
    let code = window.location().hash().ok()?.strip_prefix(CODE)?.to_owned();
    window.history().ok()?.replace_state_with_url(&JsValue::NULL, "", Some("/")).ok()?;
    Some(code)
}

fn storage() -> Option<web_sys::Storage> {
    web_sys::window()?.local_storage().ok().flatten()
}
