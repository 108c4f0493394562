use super::*;
use proptest::prelude::*;

/// Writes a field whose value is bytes.
fn part(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 128);
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

fn envelope(api_version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
    let type_meta = [part(1, api_version.as_bytes()), part(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), part(1, &type_meta), part(2, object), part(3, b""), part(4, b"")].concat()
}

#[test]
fn a_deployment_as_go_writes_it() {
    // Empty strings, zeroes and empty times are written too, where Go has no pointer.
    let metadata =
        [part(1, b"web"), part(2, b""), part(8, b""), number(7, 0), part(11, &[part(1, b"app"), part(2, b"x")].concat())]
            .concat();
    let probe_handler = part(2, &part(2, &[number(1, 0), number(2, 80), part(3, b"")].concat()));
    let probe = [part(1, &probe_handler), number(2, 0), number(3, 5)].concat();
    let container = [part(1, b"c"), part(2, b"i"), part(11, &probe), vec![0x80, 1, 0]].concat();
    let template = part(2, &part(2, &container));
    let spec = [number(1, 0), part(3, &template), number(5, 0)].concat();
    let body = envelope("apps/v1", "Deployment", &[part(1, &metadata), part(2, &spec), part(3, b"")].concat());
    let container = json!({
        "name": "c", "image": "i",
        "readinessProbe": {"httpGet": {"port": 80}, "timeoutSeconds": 5},
    });
    assert_eq!(
        read(&body).unwrap(),
        json!({
            "kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "web", "labels": {"app": "x"}},
            "spec": {"replicas": 0, "template": {"spec": {"containers": [container]}}}, "status": {},
        })
    );
}

#[test]
fn bytes_quantities_and_times() {
    let secret = [part(1, &part(1, b"s")), part(2, &[part(1, b"key"), part(2, &[0, 255])].concat())].concat();
    assert_eq!(read(&envelope("v1", "Secret", &secret)).unwrap()["data"], json!({"key": "AP8="}));
    let options = [number(1, 0), part(4, b"Background")].concat();
    let read_options = read(&envelope("v1", "DeleteOptions", &options)).unwrap();
    assert_eq!((&read_options["gracePeriodSeconds"], &read_options["propagationPolicy"]), (&json!(0), &json!("Background")));
    assert_eq!(time(&number(1, 100), false).unwrap(), "1970-01-01T00:01:40Z");
    assert_eq!(int_or_string(&[number(1, 1), part(3, b"25%")].concat()).unwrap(), "25%");
}

#[test]
fn what_is_not_protobuf_is_refused() {
    assert!(read(b"{}").is_err());
    assert!(read(&envelope("v1", "Nothing", b"")).is_err());
    let cut = envelope("v1", "Secret", &part(1, &part(1, b"s")));
    assert!((5..cut.len() - 6).all(|len| read(&cut[..len]).is_err() || read(&cut[..len]).unwrap().is_object()));
}

#[test]
fn every_type_that_is_named_is_there() {
    for (name, message) in MESSAGES.iter() {
        for field in message.values() {
            if let Type::Message(inner) = &field.type_ {
                assert!(MESSAGES.contains_key(inner), "{name}.{} has the unknown type {inner}", field.name);
            }
        }
    }
}

proptest! {
    #[test]
    fn no_body_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&[MAGIC, &bytes].concat());
        let _ = read(&envelope("v1", "Pod", &bytes[..bytes.len().min(100)]));
    }
}
