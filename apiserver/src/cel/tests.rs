use super::*;
use serde_json::{Value as Json, json};

fn environment() -> Environment {
    Environment::new().variable("object", Type::Dyn).variable("n", Type::Int).variable("s", Type::String)
}

fn object() -> Json {
    json!({
        "metadata": {"name": "web", "labels": {"app": "web", "a-b": "c"}, "namespace": "default"},
        "spec": {"replicas": 3, "ratio": 0.5, "names": ["b", "a", "c"], "ports": [{"port": 80}, {"port": 443}], "none": null},
    })
}

/// The result as JSON, or the error's text.
fn run(source: &str) -> String {
    let program = match Program::compile(source, &environment()) {
        Ok(program) => program,
        Err(error) => return error.to_string(),
    };
    let object = object();
    let variables = [("object", Value::of(&object)), ("n", Value::Int(7)), ("s", Value::string("häuser"))];
    let mut budget = Budget::new(Budget::PER_REQUEST);
    match program.evaluate(&variables, &mut budget) {
        Ok(value) => value.to_json(&mut Frame::new(vec![], &mut budget)).unwrap().to_string(),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn all(cases: &[(&str, &str)]) {
    for (source, wanted) in cases {
        assert_eq!(run(source), *wanted, "{source}");
    }
}

#[test]
fn operators() {
    all(&[
        ("1 + 2 * 3 - 4 / 2 % 2", "7"),
        ("-n + 10", "3"),
        ("--n", "7"),
        ("!true || !!true", "true"),
        ("1 < 2 && 2.5 >= 2 && 'a' < 'b' && 1u <= 2", "true"),
        ("dyn(1) == 1.0 && dyn(1u) == 1 && 1 != 2", "true"),
        ("n > 5 ? 'big' : 'small'", "\"big\""),
        ("'a' + 'b'", "\"ab\""),
        ("[1] + [2]", "[1,2]"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("false && 1 / 0 == 1", "false"),
        ("1 / 0 == 1 && false", "false"),
        ("1 / 0 == 1 || true", "true"),
        ("1 / 0 == 1 || false", "division by zero"),
        ("0x1F", "31"),
        ("1e3", "1000.0"),
        ("2 in [1, 2]", "true"),
        ("'app' in object.metadata.labels", "true"),
        ("'x' in object.metadata.labels", "false"),
        ("[1, 2][1]", "2"),
        ("[1, 2][2]", "index out of bounds: 2"),
        ("{'a': 1}['a']", "1"),
        ("{'a': 1}['b']", "no such key: b"),
        ("{'a': 1, 'a': 2}", "Failed with repeated key"),
        (r#"'a\n\x41\u00e4\'' + r"\d" + """x"y""" "#, r#""a\nAä'\\dx\"y""#),
        ("b'abc' == bytes('abc')", "true"),
        ("n // a remark", "7"),
    ]);
}

#[test]
fn fields() {
    all(&[
        ("object.spec.replicas", "3"),
        ("object.metadata.namespace", "\"default\""),
        ("object.metadata.labels['a-b']", "\"c\""),
        ("object.spec.missing", "no such key: missing"),
        ("has(object.spec.replicas) && !has(object.spec.missing)", "true"),
        ("has(object.missing.deeper)", "no such key: missing"),
        ("object.spec.none == null", "true"),
        ("object.?spec.?missing.orValue(5)", "5"),
        ("object.?spec.missing.deeper.hasValue()", "false"),
        ("object[?'spec'].?replicas.orValue(0)", "3"),
        ("[?object.?missing, 1]", "[1]"),
        ("{?'a': object.?missing, 'b': 1}", r#"{"b":1}"#),
        ("optional.of(1).optMap(x, x + 1).value()", "2"),
        ("optional.none().or(optional.of(4)).value()", "4"),
        ("optional.none().value()", "optional.none() dereference"),
        ("optional.ofNonZeroValue('').hasValue()", "false"),
        ("type(1) == int && type('') == string && type(type(1)) == type", "true"),
        ("dyn(1) + dyn('a')", "no such overload"),
    ]);
}

#[test]
fn macros() {
    all(&[
        ("object.spec.ports.all(p, p.port > 10)", "true"),
        ("object.spec.ports.exists(p, p.port == 443)", "true"),
        ("object.spec.ports.exists_one(p, p.port > 10)", "false"),
        ("object.spec.ports.map(p, p.port)", "[80,443]"),
        ("object.spec.ports.map(p, p.port > 80, p.port + 1)", "[444]"),
        ("object.spec.ports.filter(p, p.port > 80).size()", "1"),
        ("object.metadata.labels.all(k, k.size() > 1)", "true"),
        ("object.metadata.labels.exists(k, object.metadata.labels[k] == 'c')", "true"),
        ("object.metadata.labels.all(k, v, k != v)", "true"),
        ("[1, 2].transformList(i, v, i * 10 + v)", "[1,12]"),
        ("{'a': 1}.transformMap(k, v, v + 1)", r#"{"a":2}"#),
        ("{'a': 'b'}.transformMapEntry(k, v, {v: k})", r#"{"b":"a"}"#),
        ("[1, 0].exists(x, 1 / x == 1)", "true"),
        ("[0, 1].exists(x, 1 / x == 1)", "true"),
        ("[0, 2].exists(x, 1 / x == 1)", "division by zero"),
        ("[[1, 2], [3]].map(x, x.map(y, y * 2))", "[[2,4],[6]]"),
        ("['b', 'a'].sortBy(x, x)", r#"["a","b"]"#),
    ]);
}

#[test]
fn libraries() {
    all(&[
        ("s.size() == 6 && s.charAt(1) == 'ä' && s.indexOf('user') == 2 && s.substring(1, 3) == 'äu'", "true"),
        ("'a,b,c'.split(',', 2)", r#"["a","b,c"]"#),
        ("'abc'.split('')", r#"["a","b","c"]"#),
        ("['a', 'b'].join('-')", "\"a-b\""),
        ("'hello'.replace('l', 'L', 1) + 'A'.lowerAscii() + ' x '.trim() + 'ab'.reverse()", "\"heLloaxba\""),
        ("'abcabc'.lastIndexOf('b') * 10 + 'abcabc'.lastIndexOf('b', 3)", "41"),
        ("'abc'.substring(2, 1)", "invalid substring range. start: 2, end: 1"),
        ("'v12'.matches('^v[0-9]+$') && matches('a', s + '|a')", "true"),
        ("'a1b22'.findAll('[0-9]+')", r#"["1","22"]"#),
        ("'a1b22'.find('[0-9]+')", "\"1\""),
        ("object.spec.names.isSorted()", "false"),
        ("[1, 2].sum() + [3, 1].max() + ['a'].indexOf('a')", "6"),
        ("[3, 1, 2].sort() == [1, 2, 3] && [1, 1].distinct() == [1] && [[1], [2]].flatten() == [1, 2]", "true"),
        ("sets.contains([1, 2], [2]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])", "true"),
        ("lists.range(3)", "[0,1,2]"),
        ("[].min()", "min called on empty list"),
        ("duration('1h30m') == duration('90m') && duration('1h').getMinutes() == 60", "true"),
        ("timestamp('2024-02-29T10:00:00Z').getDayOfMonth()", "28"),
        ("timestamp('2024-02-29T10:00:00Z').getHours('Europe/Zurich')", "11"),
        ("timestamp('2024-02-29T10:00:00Z').getHours('-03:30')", "6"),
        ("string(timestamp('2024-01-01T00:00:00Z') + duration('1.5s'))", "\"2024-01-01T00:00:01.5Z\""),
        ("string(1.5) + string(1) + string(duration('1h')) + string(true)", "\"1.513600strue\""),
        ("int('12') + int(3.9) + int(1u)", "16"),
        ("ip('192.168.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.1.1') && !isIP('x')", "true"),
        ("cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.1.1/8').masked() == cidr('10.0.0.0/8')", "true"),
        ("ip.isCanonical('::1') && !ip.isCanonical('0:0:0:0:0:0:0:1')", "true"),
        ("url('https://a.b:8443/x/y?q=1&q=2').getPort() + url('https://[::1]:80/').getHostname()", "\"8443::1\""),
        ("url('https://a.b/x?q=1&q=2').getQuery()", r#"{"q":["1","2"]}"#),
        ("isURL('../x') || isURL('https://a b')", "false"),
        ("quantity('1Gi').isGreaterThan(quantity('500Mi')) && quantity('1') == quantity('1000m')", "true"),
        ("quantity('50k').add(20).sub(quantity('10k')).asInteger()", "40020"),
        ("semver('1.2.3').isLessThan(semver('1.10.0')) && semver('v1.2', true).patch() == 0 && !isSemver('1.2')", "true"),
        ("semver('1.0.0-alpha').compareTo(semver('1.0.0'))", "-1"),
        ("'%s %d %.2f %x %s'.format(['a', 3, 1.234, 255, [1, 2]])", "\"a 3 1.23 ff [1, 2]\""),
        ("!format.dns1123Label().validate('web').hasValue() && format.named('uuid').value().validate('x').hasValue()", "true"),
        ("jsonpatch.escapeKey('a/b~c')", "\"a~1b~0c\""),
        ("math.greatest([1, 5, 3]) + math.least(4, 2) + math.abs(-1)", "8"),
        ("base64.encode(b'hi') + string(base64.decode('aGk='))", "\"aGk=hi\""),
        ("strings.quote('a\"b')", r#""\"a\\\"b\"""#),
    ]);
}

#[test]
fn what_does_not_compile_is_shown_where_it_stands() {
    let failed = |message: &str| format!("compilation failed: ERROR: <input>:{message}");
    let cases = [
        ("x", "1:1: undeclared reference to 'x' (in container '')\n | x\n | ^"),
        ("object.foo + xy", "1:14: undeclared reference to 'xy' (in container '')\n | object.foo + xy\n | .............^"),
        ("n + 'a'", "1:3: found no matching overload for '_+_' applied to '(int, string)'\n | n + 'a'\n | ..^"),
        ("s.nope()", "1:7: undeclared reference to 'nope' (in container '')\n | s.nope()\n | ......^"),
        (
            "s.startsWith(1)",
            "1:13: found no matching overload for 'startsWith' applied to 'string.(int)'\n | s.startsWith(1)\n | ............^",
        ),
        ("n.field", "1:2: type 'int' does not support field selection\n | n.field\n | .^"),
        (
            "n.all(x, true)",
            "1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n | n.all(x, true)\n | ^",
        ),
        ("[1, 'a']", "1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        (
            "s.matches('[')",
            "1:11: invalid matches argument: regex parse error:\n    [\n    ^\nerror: unclosed character class\n | s.matches('[')\n | ..........^",
        ),
        ("1 +\n  n n", "2:5: Syntax error: extraneous input 'n' expecting <EOF>\n |   n n\n | ....^"),
        ("has(n)", "1:5: invalid argument to has() macro\n | has(n)\n | ....^"),
        ("object.all(1, true)", "1:12: argument must be a simple name\n | object.all(1, true)\n | ...........^"),
        ("#", "1:1: Syntax error: token recognition error at: '#'\n | #\n | ^"),
        ("if", "1:1: reserved identifier: if\n | if\n | ^"),
    ];
    for (source, message) in cases {
        assert_eq!(run(source), failed(message), "{source}");
    }
    assert!(run("").starts_with("compilation failed: ERROR: <input>:1:1: Syntax error: mismatched input '<EOF>' expecting {"));
    let both = run("x && y");
    assert_eq!(both.matches("undeclared reference").count(), 2, "{both}");
}

#[test]
fn a_schema_types_what_is_read() {
    let schema = json!({"type": "object", "properties": {
        "at": {"type": "string", "format": "date-time"},
        "for": {"type": "string", "format": "duration"},
        "size": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "v": {"type": "integer"}}}},
        "port": {"x-kubernetes-int-or-string": true},
        "hidden": {"x-kubernetes-preserve-unknown-fields": true},
        "more": {"type": "object", "additionalProperties": {"type": "integer"}},
    }});
    let kind = Type::of_schema(&schema, false, &|_| None).unwrap();
    let value = json!({"at": "2024-01-01T00:00:00Z", "for": "1h", "size": 2, "tags": ["a", "b"], "port": "http", "hidden": 1,
        "items": [{"name": "a", "v": 1}, {"name": "b", "v": 2}], "more": {"x-y": 1}});
    let old = json!({"tags": ["b", "a"], "items": [{"name": "b", "v": 3}]});
    let environment = Environment::new().variable("self", kind.clone()).variable("oldSelf", kind.clone());
    let test = |source: &str| {
        let program = Program::compile(source, &environment).map_err(|error| error.to_string())?;
        let variables = [("self", Value::typed(&value, &kind)), ("oldSelf", Value::typed(&old, &kind))];
        program.test(&variables, &mut Budget::new(10_000)).map_err(|error| error.to_string())
    };
    for source in [
        "self.at < timestamp('2025-01-01T00:00:00Z')",
        "self.__for__ == duration('60m')",
        "self.size / 2.0 == 1.0",
        "self.tags == oldSelf.tags && size(self.tags + ['b', 'c']) == 3",
        "(self.items + oldSelf.items).exists(i, i.name == 'b' && i.v == 3) && size(self.items + oldSelf.items) == 2",
        "self.port == 'http' || self.port == 80",
        "self.more['x-y'] == 1 && self.more.all(k, self.more[k] > 0)",
        "has(self.at) && !has(oldSelf.at)",
    ] {
        assert_eq!(test(source), Ok(true), "{source}");
    }
    for source in ["self.hidden == 1", "self.nope", "self.size == 'a'", "self.at + 1 == 2"] {
        assert!(test(source).unwrap_err().starts_with("compilation failed"), "{source}");
    }
    assert!(Program::compile("self.tags == oldSelf.tags", &environment).unwrap().refers_to("oldSelf"));
}

#[test]
fn what_would_run_away_is_stopped() {
    let numbers: Vec<u32> = (0..200).collect();
    let object = json!({"list": numbers, "text": "x".repeat(1000)});
    let environment = environment();
    let expect = |source: &str, wanted: Error| {
        let program = Program::compile(source, &environment).unwrap_or_else(|error| panic!("{error}"));
        let mut budget = Budget::new(Budget::PER_REQUEST);
        let result = program.evaluate(&[("object", Value::of(&object))], &mut budget).map(|value| value.type_name().into_owned());
        assert_eq!(result, Err(wanted), "{source}");
    };
    let l = "object.list";
    expect(&format!("{l}.all(a, {l}.all(b, {l}.all(c, {l}.all(d, true))))"), Error::CallCost);
    expect(&format!("{l}.map(a, {l}.map(b, {l}.map(c, c)))"), Error::CallCost);
    expect(
        "[object.text].map(a, a + a).map(a, a + a + a + a).map(a, a + a + a + a + a + a + a + a).map(a, a+a+a+a+a+a+a+a+a+a+a+a+a+a+a+a).map(a, a+a+a+a+a+a+a+a+a+a+a+a)",
        Error::CallCost,
    );
    expect(&format!("{l}.all(a, {l}.all(b, object.text.matches('(x*)*y' + string(a * 200 + b)) || true))"), Error::CallCost);
    expect(&format!("{l}.all(a, {l}.all(b, object.text.contains(object.text)))"), Error::CallCost);
    // Lists within lists, that take no room but a long time to compare.
    let mut doubled = "[1]".to_owned();
    for level in 0..24 {
        doubled = format!("[{doubled}].map(x{level}, [x{level}, x{level}])[0]");
    }
    expect(&format!("{doubled} == {doubled}"), Error::CallCost);
    let program = Program::compile(&format!("{l}.all(a, a >= 0)"), &environment).unwrap();
    let mut budget = Budget::new(1_000);
    let variables = [("object", Value::of(&object))];
    assert_eq!(program.test(&variables, &mut budget), Err(Error::TotalCost));
}

#[test]
fn nesting_is_limited() {
    let error =
        |source: String| Program::compile(&source, &environment()).err().map(|error| error.to_string()).unwrap_or_default();
    for deep in [
        format!("{}1{}", "(".repeat(100_000 / 2 - 1), ")".repeat(100_000 / 2)),
        format!("{}1{}", "[".repeat(40_000), "]".repeat(40_000)),
        "-(".repeat(1_000),
        format!("n{}", " + n".repeat(1_000)),
        format!("object{}", ".a".repeat(1_000)),
        format!("object{}", "[0]".repeat(1_000)),
        format!("{}1", "true ? 1 : ".repeat(1_000)),
    ] {
        let message = error(deep.clone());
        assert!(message.contains("expression recursion limit exceeded: 250"), "{deep:.40}: {message:.300}");
    }
    assert_eq!(error(format!("true{}", " && true".repeat(1_000))), "");
    assert!(error("1".repeat(100_001)).contains("expression code point size exceeds limit: size: 100001, limit 100000"));
}

/// The deepest expression that compiles is evaluated on the stack of a worker thread.
#[test]
fn the_deepest_expression_fits_on_the_stack() {
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(|| {
        let nested = format!("{}1{}", "[".repeat(240), "]".repeat(240));
        assert!(run(&nested).starts_with("[[["));
        let maps = format!("{}1{}", "[1].map(x, ".repeat(115), ")".repeat(115));
        assert!(run(&maps).starts_with("[[["), "{}", run(&maps));
        let sums = format!("n{}", " + n".repeat(240));
        assert_eq!(run(&sums), "1687");
        let choices = format!("{}1", "n == 1 ? 1 : ".repeat(230));
        assert_eq!(run(&choices), "1");
    });
    thread.unwrap().join().unwrap();
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    fn expression() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("object".to_owned()),
            Just("n".to_owned()),
            Just("s".to_owned()),
            Just("object.spec.names".to_owned()),
            Just("object.spec.ports".to_owned()),
            Just("object.metadata.labels".to_owned()),
            Just("x".to_owned()),
            any::<i64>().prop_map(|n| n.to_string()),
            any::<f64>().prop_map(|n| format!("{n:?}")),
            "[a-z0-9%.:/ä-]{0,6}".prop_map(|s| format!("'{s}'")),
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("duration('1h')".to_owned()),
            Just("timestamp('2024-01-01T00:00:00Z')".to_owned()),
        ];
        leaf.prop_recursive(6, 60, 4, |inner| {
            let operator = prop::sample::select(vec!["+", "-", "*", "/", "%", "==", "!=", "<", ">=", "in", "&&", "||"]);
            let names: Vec<&str> = METHODS.to_vec();
            prop_oneof![
                (inner.clone(), operator, inner.clone()).prop_map(|(a, op, b)| format!("(dyn({a}) {op} dyn({b}))")),
                (
                    inner.clone(),
                    prop::sample::select(vec!["all", "exists", "map", "filter", "exists_one", "sortBy"]),
                    inner.clone()
                )
                    .prop_map(|(a, name, b)| format!("dyn({a}).{name}(x, dyn({b}))")),
                (inner.clone(), prop::sample::select(names), prop::collection::vec(inner.clone(), 0..3)).prop_map(
                    |(a, name, args)| {
                        let args: Vec<String> = args.iter().map(|arg| format!("dyn({arg})")).collect();
                        format!("dyn({a}).{name}({})", args.join(", "))
                    }
                ),
                prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{dyn({a}): {b}}}")),
                (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("(dyn({a}) ? {b} : {c})")),
                (inner.clone(), inner).prop_map(|(a, b)| format!("dyn({a})[dyn({b})]")),
            ]
        })
    }

    const METHODS: [&str; 30] = [
        "size",
        "contains",
        "startsWith",
        "charAt",
        "indexOf",
        "lastIndexOf",
        "replace",
        "split",
        "substring",
        "join",
        "matches",
        "find",
        "findAll",
        "format",
        "sum",
        "min",
        "max",
        "slice",
        "flatten",
        "distinct",
        "reverse",
        "sort",
        "isSorted",
        "getHours",
        "getFullYear",
        "first",
        "last",
        "trim",
        "lowerAscii",
        "hasValue",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        /// Whatever it says, an expression ends within its budget, and nothing panics.
        #[test]
        fn no_expression_panics_or_runs_away(source in expression()) {
            if let Ok(program) = Program::compile(&source, &environment().variable("x", Type::Dyn)) {
                let object = object();
                let variables = [("object", Value::of(&object)), ("n", Value::Int(7)), ("s", Value::string("häuser")), ("x", Value::Int(1))];
                let mut budget = Budget::new(100_000);
                if let Ok(value) = program.evaluate(&variables, &mut budget) {
                    let _ = value.to_json(&mut Frame::new(vec![], &mut budget));
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Whatever is nested is refused beyond a depth, and never by a stack that runs over.
        #[test]
        fn depth_is_bounded(opening in prop::sample::select(vec![
            "(", "[", "{1: ", "!", "-", "n.", "n ? 1 : ", "n + ", "[1].map(x, ", "s.matches(", "has(n.", "true || ", "n in ", "n[", "{?", "[?", "dyn(", "size(",
        ]), depth in 300usize..2_000) {
            let refused = Program::compile(&opening.repeat(depth), &environment()).map_err(|error| error.to_string());
            prop_assert!(refused.is_err());
            let _ = Program::compile(&format!("{}1{}", opening.repeat(depth), ")".repeat(depth)), &environment());
        }

    }

    proptest! {
        /// The same again has the same result at the same cost.
        #[test]
        fn an_expression_always_says_the_same(source in expression()) {
            let Ok(program) = Program::compile(&source, &environment().variable("x", Type::Dyn)) else { return Ok(()) };
            let object = object();
            let variables = [("object", Value::of(&object)), ("n", Value::Int(7)), ("s", Value::string("häuser")), ("x", Value::Int(1))];
            let run = || {
                let mut budget = Budget::new(100_000);
                let value = program.evaluate(&variables, &mut budget);
                let result = value.and_then(|value| value.to_json(&mut Frame::new(vec![], &mut budget)));
                (result.map(|json| json.to_string()), budget.remaining())
            };
            prop_assert_eq!(run(), run());
        }

        #[test]
        fn no_text_panics(source in "\\PC{0,40}") {
            let _ = Program::compile(&source, &environment()).map_err(|error| error.to_string());
        }

        #[test]
        fn no_jumble_of_tokens_panics(tokens in prop::collection::vec(prop::sample::select(vec![
            "(", ")", "[", "]", "{", "}", ".", ".?", "[?", "{?", "?", ":", ",", "n", "s", "has", "all", "1", "'a'", "-", "!", "in", "&&", "==",
        ]), 0..20)) {
            let _ = Program::compile(&tokens.join(" "), &environment()).map_err(|error| error.to_string());
        }
    }
}

#[test]
fn a_value_is_bound_where_that_is_offered() {
    let bound = "cel.bind(big, n * 10, cel.bind(all, [big, big + 1], all.map(n, n + big)))";
    assert!(run(bound).contains("undeclared reference to 'cel' (in container '')"), "{}", run(bound));
    let environment = environment().bindings();
    let evaluate = |source: &str| {
        let program = Program::compile(source, &environment).unwrap();
        let mut budget = Budget::new(Budget::PER_REQUEST);
        let value = program.evaluate(&[("n", Value::Int(7)), ("s", Value::string("x"))], &mut budget).unwrap();
        value.to_json(&mut Frame::new(vec![], &mut budget)).unwrap().to_string()
    };
    assert_eq!(evaluate(bound), "[140,141]");
    assert_eq!(evaluate("cel.bind(n, s, n + n) + string(n)"), "\"xx7\"", "only within the expression");
    assert!(Program::compile("cel.bind(n, 1, n + 'a')", &environment).is_err(), "its type is known");
}
