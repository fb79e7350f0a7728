use super::*;

#[test]
fn inputs_that_match_nothing_are_refused_with_a_suggestion() {
    check(
        &[&around(
            r#"[sinks.a]
type = 'test_sink'
endpoint = 'http://x'
inputs = ['inn', 'z*', 'nothing', 'out', 'in.x', 'in', 'in']
"#,
        )],
        r#"
error: sinks.a: input `inn` matches no component
  --> a.toml:11:11
   |
11 | inputs = ['inn', 'z*', 'nothing', 'out', 'in.x', 'in', 'in']
   |           ^^^^^
   |
   = help: did you mean `in`?

error: sinks.a: input `z*` matches nothing
  --> a.toml:11:18
   |
11 | inputs = ['inn', 'z*', 'nothing', 'out', 'in.x', 'in', 'in']
   |                  ^^^^
   |
   = help: components that send: `in`

error: sinks.a: input `nothing` matches no component
  --> a.toml:11:24
   |
11 | inputs = ['inn', 'z*', 'nothing', 'out', 'in.x', 'in', 'in']
   |                        ^^^^^^^^^
   |
   = help: components that send: `in`

error: sinks.a: input `out` is a sink
  --> a.toml:11:35
   |
11 | inputs = ['inn', 'z*', 'nothing', 'out', 'in.x', 'in', 'in']
   |                                   ^^^^^
   |
   = help: a sink sends nothing: name a source or a transform

error: sinks.a: input `in.x` does not exist: `in` has no named outputs
  --> a.toml:11:42
   |
11 | inputs = ['inn', 'z*', 'nothing', 'out', 'in.x', 'in', 'in']
   |                                          ^^^^^^
   |
   = help: write "in"

error: sinks.a: input `in` is listed twice
  --> a.toml:11:56
   |
11 | inputs = ['inn', 'z*', 'nothing', 'out', 'in.x', 'in', 'in']
   |                                                        ^^^^
   |
note: it is here first
  --> a.toml:11:50
   |
11 | inputs = ['inn', 'z*', 'nothing', 'out', 'in.x', 'in', 'in']
   |                                                  ----
   = help: remove one of them
"#,
    );
}

#[test]
fn named_outputs_have_to_be_named_right() {
    check(
        &[&around(
            r#"[transforms.route]
type = 'test_transform'
inputs = ['in']
routes = ['good', 'errors']
[sinks.a]
type = 'test_sink'
endpoint = 'http://x'
inputs = ['route', 'route.erors', 'route.other', 'route.good']
"#,
        )],
        r#"
error: sinks.a: input `route` does not say which of its outputs is meant
  --> a.toml:15:11
   |
15 | inputs = ['route', 'route.erors', 'route.other', 'route.good']
   |           ^^^^^^^
   |
   = help: outputs of `route`: `route.errors`, `route.good`

error: sinks.a: input `route.erors` does not exist: `route` has no output `erors`
  --> a.toml:15:20
   |
15 | inputs = ['route', 'route.erors', 'route.other', 'route.good']
   |                    ^^^^^^^^^^^^^
   |
   = help: did you mean `route.errors`?

error: sinks.a: input `route.other` does not exist: `route` has no output `other`
  --> a.toml:15:35
   |
15 | inputs = ['route', 'route.erors', 'route.other', 'route.good']
   |                                   ^^^^^^^^^^^^^
   |
   = help: outputs of `route`: `route.errors`, `route.good`
"#,
    );
}

#[test]
fn every_cycle_is_told_once() {
    check(
        &[&around(
            r#"[transforms.a]
type = 'test_transform'
inputs = ['b']
[transforms.b]
type = 'test_transform'
inputs = ['a', 'c']
[transforms.c]
type = 'test_transform'
inputs = ['c', 'in']
"#,
        )],
        r#"
error: inputs form a cycle: a -> b -> a
  --> a.toml:13:11
   |
13 | inputs = ['a', 'c']
   |           ^^^
   |
   = help: remove one of these inputs

error: inputs form a cycle: c -> c
  --> a.toml:16:11
   |
16 | inputs = ['c', 'in']
   |           ^^^
   |
   = help: remove one of these inputs
"#,
    );
}

#[test]
fn transforms_and_sinks_need_inputs() {
    check(
        &[&around(
            r#"[transforms.a]
type = 'test_transform'
inputs = []
[sinks.b]
type = 'test_sink'
endpoint = 'http://x'
[sinks.c]
type = 'test_sink'
endpoint = 'http://x'
inputs = 'in'
[sinks.d]
type = 'test_sink'
endpoint = 'http://x'
inputs = [1, 'in']
"#,
        )],
        r#"
error: transforms.a has no inputs
 --> a.toml:8:13
  |
8 | [transforms.a]
  |             ^
  |
  = help: add inputs = ["NAME"]; components that send: `in`

error: sinks.b has no inputs
  --> a.toml:11:8
   |
11 | [sinks.b]
   |        ^
   |
   = help: add inputs = ["NAME"]; components that send: `a`, `in`

error: sinks.c: inputs is not an array of names
  --> a.toml:17:10
   |
17 | inputs = 'in'
   |          ^^^^
   |
   = help: write inputs = ["NAME"]

error: sinks.d: an input is the name of a component
  --> a.toml:21:11
   |
21 | inputs = [*, 'in']
   |           ^
   |
   = help: put the name in quotes
"#,
    );
}

#[test]
fn signals_do_not_flow_where_they_are_not_taken() {
    check(
        &[&around(
            r#"[sources.q]
type = 'test_source'
address = '127.0.0.1:9'
signal = 'queries'
[sinks.a]
type = 'test_sink'
endpoint = 'http://x'
inputs = ['t']
[transforms.t]
type = 'test_transform'
inputs = ['q']
[sinks.b]
type = 'test_sink'
endpoint = 'http://x'
inputs = ['in']
signal = 'queries'
"#,
        )],
        r#"
error: sinks.a takes metrics, but `t` sends queries
  --> a.toml:15:11
   |
15 | inputs = ['t']
   |           ^^^
   |
note: the transform is declared here
  --> a.toml:16:13
   |
16 | [transforms.t]
   |             -

error: sinks.b takes queries, but `in` sends metrics
  --> a.toml:22:11
   |
22 | inputs = ['in']
   |           ^^^^
   |
note: the source is declared here
  --> a.toml:1:10
   |
 1 | [sources.in]
   |          --
"#,
    );
}

#[test]
fn queries_have_one_consumer() {
    check(
        &[&around(
            r#"[sources.q]
type = 'test_source'
address = '127.0.0.1:9'
signal = 'queries'
[sinks.a]
type = 'test_sink'
endpoint = 'http://x'
inputs = ['q']
signal = 'queries'
[sinks.b]
type = 'test_sink'
endpoint = 'http://x'
inputs = ['q*']
signal = 'queries'
"#,
        )],
        r#"
error: queries of `q` go to sinks.a already
  --> a.toml:20:11
   |
20 | inputs = ['q*']
   |           ^^^^
   |
note: they go here
  --> a.toml:15:11
   |
15 | inputs = ['q']
   |           ---
   = help: a query has one answer: let only one component consume them
"#,
    );
}

#[test]
fn signals_that_nothing_consumes_are_warned_of() {
    check(
        &[&around(
            r#"[sources.q]
type = 'test_source'
address = '127.0.0.1:9'
signal = 'queries'
[transforms.t]
type = 'test_transform'
inputs = ['q', 'in']
[sinks.a]
type = 'test_sink'
endpoint = 'http://x'
inputs = ['t']
"#,
        )],
        r#"
warning: nothing consumes the queries of `t`
  --> a.toml:12:13
   |
12 | [transforms.t]
   |             ^
   |
   = help: add "t" to the inputs of a sink, or remove it
"#,
    );
}

#[test]
fn outputs_that_nothing_consumes_are_warned_of() {
    check(
        &[&around(
            r#"[transforms.route]
type = 'test_transform'
inputs = ['in']
routes = ['good', 'errors']
[sinks.a]
type = 'test_sink'
endpoint = 'http://x'
inputs = ['route.good']
[sources.idle]
type = 'test_source'
address = '127.0.0.1:2'
"#,
        )],
        r#"
warning: nothing consumes `route.errors`
 --> a.toml:8:13
  |
8 | [transforms.route]
  |             ^^^^^
  |
  = help: add "route.errors" to the inputs of a sink, or remove it

warning: nothing consumes `idle`
  --> a.toml:16:10
   |
16 | [sources.idle]
   |          ^^^^
   |
   = help: add "idle" to the inputs of a sink, or remove it
"#,
    );
}

#[test]
fn a_broken_component_causes_no_other_errors() {
    check(
        &[&around(
            r#"[transforms.t]
type = 'test_transfor'
inputs = ['in']
[sinks.b]
type = 'test_sink'
endpoint = 'http://x'
inputs = ['t', 't.x', 't*']
"#,
        )],
        r#"
error: transforms.t: unknown transform type `test_transfor`
 --> a.toml:9:8
  |
9 | type = 'test_transfor'
  |        ^^^^^^^^^^^^^^^
  |
  = help: did you mean `test_transform`?
"#,
    );
}

#[test]
fn data_that_comes_by_two_ways_is_warned_of() {
    let graph = |wiring: &str| {
        let text = around("").replace("inputs = ['in']", wiring);
        let more = "[transforms.t]\ntype = 'test_transform'\ninputs = ['in']\n\
                    [transforms.u]\ntype = 'test_transform'\ninputs = ['in']\n\
                    [transforms.r]\ntype = 'test_transform'\ninputs = ['in']\nroutes = ['a', 'b']\n\
                    [transforms.v]\ntype = 'test_transform'\ninputs = ['r.a']\n";
        let found = load_texts(&[&text, more]).unwrap().warnings;
        let twice = found.into_iter().map(|found| found.message);
        twice
            .filter(|message| message.contains("twice"))
            .collect::<Vec<_>>()
    };
    for wiring in [
        "['t']",
        "['in']",
        "['r.*']",
        "['r.a', 'r.b']",
        "['v', 'r.b']",
        "['in', 'i?']",
    ] {
        assert_eq!(graph(&format!("inputs = {wiring}")), [""; 0], "{wiring}");
    }
    for (wiring, first, second) in [
        ("['t', 'u']", "t", "u"),
        ("['in', 't']", "in", "t"),
        ("['in', 'r.a']", "in", "r.a"),
        ("['r.a', 'v']", "r.a", "v"),
        ("['t', 'v']", "t", "v"),
    ] {
        let found = graph(&format!("inputs = {wiring}"));
        let ways = format!("twice: through `{first}` and through `{second}`");
        assert!(found.len() == 1 && found[0].ends_with(&ways), "{found:?}");
    }
}
