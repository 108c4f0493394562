//! Who is signed in: a bearer token, kept for this tab alone.

use leptos::prelude::*;

const KEY: &str = "slipway-token";

/// The signed-in person's token; `None`: sign in first.
#[derive(Clone, Copy)]
pub struct Session(RwSignal<Option<String>>);

impl Session {
    pub fn provide() -> Self {
        let session = Session(RwSignal::new(storage().and_then(|storage| storage.get_item(KEY).ok().flatten())));
        provide_context(session);
        session
    }

    pub fn token(self) -> Option<String> {
        self.0.get()
    }

    pub fn token_untracked(self) -> Option<String> {
        self.0.get_untracked()
    }

    pub fn sign_in(self, token: String) {
        if let Some(storage) = storage() {
            let _ = storage.set_item(KEY, &token);
        }
        self.0.set(Some(token));
    }

    pub fn sign_out(self) {
        if let Some(storage) = storage() {
            let _ = storage.remove_item(KEY);
        }
        self.0.set(None);
    }
}

pub fn session() -> Session {
    expect_context::<Session>()
}

fn storage() -> Option<web_sys::Storage> {
    web_sys::window()?.session_storage().ok().flatten()
}
