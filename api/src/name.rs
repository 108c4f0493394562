//! What names, label keys and label values may look like. Each rule returns what is wrong, worded as Kubernetes does.

const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
    (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end \
    with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end \
    with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an \
    alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and \
    end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

fn lower_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_qualified(text: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(|byte| lower_or_digit(*byte));
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|byte| lower_or_digit(*byte) || *byte == b'-')
}

fn check(text: &str, max: usize, good: bool, wrong: &str) -> Vec<String> {
    let mut errors = vec![];
    if text.len() > max {
        errors.push(format!("must be no more than {max} characters"));
    }
    if !good {
        errors.push(wrong.to_owned());
    }
    errors
}

/// `web-1.example.com`: what most objects are called.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    check(text, 253, text.split('.').all(is_label), SUBDOMAIN)
}

/// `web-1`: namespaces, containers.
pub fn dns1123_label(text: &str) -> Vec<String> {
    check(text, 63, is_label(text), LABEL)
}

/// `web-1`, beginning with a letter: services.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let good = is_label(text) && text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    check(text, 63, good, LABEL_1035)
}

/// `app.kubernetes.io/name`: label keys, annotation keys, taint keys, resource names.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut errors = vec![];
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        ["", name] => {
            errors.push("prefix part must be non-empty".to_owned());
            name
        }
        [prefix, name] => {
            errors.extend(dns1123_subdomain(prefix).into_iter().map(|error| format!("prefix part {error}")));
            name
        }
        _ => {
            return vec![format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push("name part must be no more than 63 characters".to_owned());
    }
    if !is_qualified(name) {
        errors.push(format!("name part {QUALIFIED}"));
    }
    errors
}

pub fn label_value(text: &str) -> Vec<String> {
    check(text, 63, text.is_empty() || is_qualified(text), LABEL_VALUE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_good_names() {
        for name in ["a", "web-1", "a.b-c.d", "0"] {
            assert_eq!(dns1123_subdomain(name), Vec::<String>::new(), "{name}");
        }
        for key in ["app", "App_1.x", "app.kubernetes.io/name"] {
            assert_eq!(qualified_name(key), Vec::<String>::new(), "{key}");
        }
        assert!(label_value("").is_empty() && label_value("a_B.c-9").is_empty());
    }

    #[test]
    fn says_what_is_wrong() {
        for name in ["", "A", "-a", "a-", "a..b", "a_b", ".a"] {
            assert!(dns1123_subdomain(name)[0].starts_with("a lowercase RFC 1123 subdomain must"), "{name}");
        }
        assert_eq!(dns1123_subdomain(&"a".repeat(254)), ["must be no more than 253 characters"]);
        assert!(dns1035_label("1a")[0].starts_with("a DNS-1035 label") && dns1123_label("a.b").len() == 1);
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
        assert!(qualified_name("a/b/c")[0].starts_with("a qualified name must consist"));
        assert!(qualified_name("A/b")[0].starts_with("prefix part a lowercase RFC 1123"));
        assert_eq!(qualified_name("")[0], "name part must be non-empty");
        assert_eq!(qualified_name(&"a".repeat(64)), ["name part must be no more than 63 characters"]);
        assert!(label_value("-")[0].starts_with("a valid label must be an empty string"));
    }
}
