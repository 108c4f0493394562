//! The SDK's errors, sorted by what the caller can do. None of the SDK's own types leaves this crate.

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use slipway_cloud::Error;

/// Sorts an error by its code; what has no code did not reach the cloud, or its answer was lost.
pub fn classify<E: ProvideErrorMetadata + std::fmt::Debug, R: std::fmt::Debug>(error: &SdkError<E, R>) -> Error {
    let code = error.code().unwrap_or_default();
    let text = match error.message() {
        Some(message) => format!("{code}: {message}"),
        None => format!("{error}"),
    };
    match code {
        "" => Error::Retryable(text),
        "InsufficientInstanceCapacity" | "InsufficientHostCapacity" | "Unsupported" | "UnfulfillableCapacity" => {
            Error::Capacity(text)
        }
        "InstanceLimitExceeded" | "VcpuLimitExceeded" | "MaxSpotInstanceCountExceeded" | "TooManyLoadBalancers" => {
            Error::Quota(text)
        }
        "UnauthorizedOperation" | "AuthFailure" | "AccessDenied" | "OptInRequired" | "ExpiredToken" => Error::Denied(text),
        code if code.ends_with(".NotFound") || code.ends_with("NotFound") => Error::Gone(text),
        "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "InternalError"
        | "Unavailable"
        | "ServiceUnavailable" => Error::Retryable(text),
        _ => Error::Invalid(text),
    }
}
