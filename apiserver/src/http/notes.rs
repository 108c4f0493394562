//! What is said of a request beside its answer: warnings for the client, annotations for the audit log.
//!
//! Whoever has something to say is far below whoever says it (a plugin of admission, the decoder), so the notes go
//! with the task that serves the request. A request that the server sends itself has notes of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;

/// So many warnings, and so much of each, is sent: more would be a header that clients refuse.
const WARNINGS_MAX: usize = 64;
const WARNING_BYTES_MAX: usize = 4096;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Notes {
    /// Each once, in the order in which they came.
    pub warnings: Vec<String>,
    /// By keys such as `pod-security.kubernetes.io/enforce-policy`.
    pub annotations: BTreeMap<String, String>,
}

tokio::task_local! {
    static NOTES: RefCell<Notes>;
}

/// Carries out `request`, and answers with what was noted meanwhile.
pub async fn gather<F: Future>(request: F) -> (F::Output, Notes) {
    NOTES
        .scope(RefCell::default(), async {
            let output = request.await;
            (output, NOTES.with(RefCell::take))
        })
        .await
}

/// Adds a `Warning` header to the answer, whatever that is. Outside of a request it says nothing.
pub fn warn(text: impl Into<String>) {
    let mut text = text.into();
    if text.len() > WARNING_BYTES_MAX {
        let end = (0..=WARNING_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    let _ = NOTES.try_with(|notes| {
        let warnings = &mut notes.borrow_mut().warnings;
        if !warnings.contains(&text) && warnings.len() < WARNINGS_MAX {
            warnings.push(text);
        }
    });
}

/// Adds an annotation to the audit event; a later one of the same key replaces it.
pub fn annotate(key: impl Into<String>, value: impl Into<String>) {
    let _ = NOTES.try_with(|notes| notes.borrow_mut().annotations.insert(key.into(), value.into()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn notes_belong_to_the_request_that_they_were_made_in() {
        warn("nobody hears this");
        let (answer, notes) = gather(async {
            warn("one");
            let (_, inner) = gather(async { warn("inner") }).await;
            tokio::task::yield_now().await;
            warn("two");
            warn("one");
            annotate("a", "b");
            inner.warnings.len()
        })
        .await;
        assert_eq!(answer, 1);
        assert_eq!(notes.warnings, ["one", "two"]);
        assert_eq!(notes.annotations, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    }
}
