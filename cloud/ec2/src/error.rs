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
    sort(code, text)
}

fn sort(code: &str, text: String) -> Error {
    match code {
        "" => Error::Retryable(text),
        "InsufficientInstanceCapacity"
        | "InsufficientHostCapacity"
        | "InsufficientReservedInstanceCapacity"
        | "InsufficientFreeAddressesInSubnet"
        | "SpotMaxPriceTooLow"
        | "UnfulfillableCapacity"
        | "Unsupported" => Error::Capacity(text),
        code if code.ends_with("LimitExceeded") && code != "RequestLimitExceeded" => Error::Quota(text),
        "MaxSpotInstanceCountExceeded" => Error::Quota(text),
        code if code.starts_with("TooMany") && code != "TooManyRequestsException" => Error::Quota(text),
        "UnauthorizedOperation"
        | "AuthFailure"
        | "AccessDenied"
        | "AccessDeniedException"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "OptInRequired"
        | "ExpiredToken" => Error::Denied(text),
        code if code.ends_with("NotFound") => Error::Gone(text),
        // What is still being taken apart holds what it was made of.
        "ResourceInUse" | "DependencyViolation" => Error::Retryable(text),
        code if code.contains("Throttl") || code.starts_with("Internal") || code.ends_with("Unavailable") => {
            Error::Retryable(text)
        }
        "RequestLimitExceeded" | "TooManyRequestsException" | "RequestTimeout" => Error::Retryable(text),
        _ => Error::Invalid(text),
    }
}

#[cfg(test)]
mod tests {
    use super::sort;

    #[test]
    fn codes_are_sorted_by_what_can_be_done() {
        let reason = |code| sort(code, String::new()).reason();
        assert_eq!(reason("InsufficientInstanceCapacity"), "InsufficientCapacity");
        assert_eq!(reason("Unsupported"), "InsufficientCapacity");
        assert_eq!(reason("VcpuLimitExceeded"), "QuotaExceeded");
        assert_eq!(reason("TooManyTargetGroups"), "QuotaExceeded");
        assert_eq!(reason("RequestLimitExceeded"), "CloudUnavailable");
        assert_eq!(reason("EC2ThrottledException"), "CloudUnavailable");
        assert_eq!(reason("InternalFailure"), "CloudUnavailable");
        assert_eq!(reason(""), "CloudUnavailable");
        assert_eq!(reason("InvalidInstanceID.NotFound"), "Gone");
        assert_eq!(reason("TargetGroupNotFound"), "Gone");
        assert_eq!(reason("UnauthorizedOperation"), "Denied");
        assert_eq!(reason("InvalidParameterValue"), "InvalidRequest");
        assert_eq!(reason("IdempotentParameterMismatch"), "InvalidRequest");
    }
}
