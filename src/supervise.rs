//! Keeps the parts of one process running: a part that ends or panics is started again, with a growing pause.

use std::future::Future;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A part that ran this long is healthy: its next pause is short again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// Runs `part` until `shutdown`, again and again if need be.
pub fn keep_running<F, R>(name: &'static str, shutdown: CancellationToken, mut part: F) -> JoinHandle<()>
where
    F: FnMut(CancellationToken) -> R + Send + 'static,
    R: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    tokio::spawn(async move {
        let mut pause = PAUSE_MIN;
        loop {
            let started = Instant::now();
            let outcome = tokio::spawn(part(shutdown.clone())).await;
            if shutdown.is_cancelled() {
                return;
            }
            match outcome {
                Ok(Ok(())) => tracing::warn!(part = name, "ended, starting it again"),
                Ok(Err(error)) => tracing::error!(part = name, error = format!("{error:#}"), "failed, starting it again"),
                Err(panic) => tracing::error!(part = name, %panic, "panicked, starting it again"),
            }
            if started.elapsed() > HEALTHY_AFTER {
                pause = PAUSE_MIN;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn starts_again_after_an_error_and_after_a_panic() {
        let (runs, shutdown) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let counted = runs.clone();
        let task = keep_running("part", shutdown.clone(), move |shutdown| {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                match run {
                    0 => anyhow::bail!("first"),
                    1 => panic!("second"),
                    _ => shutdown.cancelled().await,
                }
                Ok(())
            }
        });
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        shutdown.cancel();
        task.await.unwrap();
    }
}
