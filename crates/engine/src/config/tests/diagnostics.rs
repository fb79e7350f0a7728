use super::*;

#[test]
fn text_that_is_not_toml_is_pointed_at_once_per_line() {
    check(
        &[r#"a = 
[sources
b = 1
password = 'hunter2
"#],
        r#"
error: not TOML: string values must be quoted, expected literal string
 --> a.toml:1:5
  |
1 | a = 
  |     ^

error: not TOML: unclosed table, expected `]`
 --> a.toml:2:9
  |
2 | [sources
  |         ^
"#,
    );
}

#[test]
fn a_pattern_in_double_quotes_is_told_of_single_ones() {
    let found = printed(&["regex = \"(\\d+)\"\n"]);
    assert!(found.contains("not TOML: "), "{found}");
    assert!(
        found.contains(
            "help: in double quotes a backslash starts an escape: use '(\\d+)', or write it twice"
        ),
        "{found}"
    );
}

#[test]
fn unknown_top_level_keys_are_refused_with_a_suggestion() {
    check(
        &[&around(
            r#"colour = true
[sorces.x]
"#,
        )],
        r#"
error: sinks.out: unknown key `colour`
 --> a.toml:8:1
  |
8 | colour = true
  | ^^^^^^
  |
  = help: known keys: `endpoint`, `queue`, `required`, `signal`

error: unknown key `sorces` at the top of the file
 --> a.toml:9:2
  |
9 | [sorces.x]
  |  ^^^^^^
  |
  = help: did you mean `sources`?
"#,
    );
}

#[test]
fn unknown_and_missing_types_are_refused_with_a_suggestion() {
    check(
        &[&around(
            r#"[sinks.b]
type = 'test_snik'
inputs = ['in']
[sinks.c]
type = 'test_source'
inputs = ['in']
[sinks.d]
inputs = ['in']
[sources.e]
type = 3
"#,
        )],
        r#"
error: sinks.b: unknown sink type `test_snik`
 --> a.toml:9:8
  |
9 | type = 'test_snik'
  |        ^^^^^^^^^^^
  |
  = help: did you mean `test_sink`?

error: sinks.c: unknown sink type `test_source`
  --> a.toml:12:8
   |
12 | type = 'test_source'
   |        ^^^^^^^^^^^^^
   |
   = help: it is a source type: declare it under [sources.NAME]

error: sinks.d has no type
  --> a.toml:14:8
   |
14 | [sinks.d]
   |        ^
   |
   = help: add type = "..."; sink types:

error: sources.e: type is not a string
  --> a.toml:17:8
   |
17 | type = *
   |        ^
   |
   = help: source types:
"#,
    );
}

#[test]
fn every_mistake_in_a_component_is_told_in_one_run() {
    check(
        &[&around(
            r#"[sinks.b]
type = 'test_sink'
inputs = ['in']
endpiont = 'http://x'
required = 'yes'
queue = { max_bytes = '1 MB', when_ful = 'block' }
"#,
        )],
        r#"
error: sinks.b: unknown key `endpiont`
  --> a.toml:11:1
   |
11 | endpiont = '********'
   | ^^^^^^^^
   |
   = help: did you mean `endpoint`?

error: sinks.b.required: must be true or false, not a text
  --> a.toml:12:12
   |
12 | required = '***'
   |            ^^^^^

error: sinks.b.queue: unknown key `when_ful`
  --> a.toml:13:31
   |
13 | queue = { max_bytes = '1 MB', when_ful = '*****' }
   |                               ^^^^^^^^
   |
   = help: did you mean `when_full`?
"#,
    );
}

#[test]
fn a_key_of_the_file_that_a_table_has_swallowed_is_sent_to_the_top() {
    check(
        &[&around(
            "\n[sinks.b]\ntype = 'test_sink'\ninputs = ['in']\nendpoint = 'http://x'\ndata_dir = '/x'\n",
        )],
        r#"
error: sinks.b: unknown key `data_dir`
  --> a.toml:13:1
   |
13 | data_dir = '**'
   | ^^^^^^^^
   |
   = help: move `data_dir` to the top of the file, in front of its first table
"#,
    );
}

#[test]
fn problems_of_validation_point_at_their_keys() {
    check(
        &[&around(
            r#"[sinks.c]
type = 'test_sink'
inputs = ['in']
endpoint = 'http://x'
[sinks.c.queue]
max_bytes = '1B'
when_full = 'block'
[transforms.t]
type = 'test_transform'
inputs = ['in']
[[transforms.t.rules]]
regex = 'a'
[[transforms.t.rules]]
regex = '('
"#,
        )],
        r#"
error: sinks.c.queue.max_bytes: must be at least 64KiB
  --> a.toml:13:13
   |
13 | max_bytes = '1B'
   |             ^^^^

error: sinks.c.queue.when_full: an optional sink cannot block its sender
  --> a.toml:14:13
   |
14 | when_full = 'block'
   |             ^^^^^^^
   |
   = help: choose drop_oldest or drop_newest, or set required = true

error: transforms.t.rules[1].regex: group is not closed
  --> a.toml:21:9
   |
21 | regex = '('
   |         ^^^
"#,
    );
}

#[test]
fn arrays_of_tables_are_pointed_into() {
    check(
        &[&around(
            r#"[transforms.t]
type = 'test_transform'
inputs = ['in']
[[transforms.t.rules]]
regex = 'a'
[[transforms.t.rules]]
regexp = 'a'
"#,
        )],
        r#"
error: transforms.t.rules[1]: unknown key `regexp`
  --> a.toml:14:1
   |
14 | regexp = '*'
   | ^^^^^^
   |
   = help: did you mean `regex`?
"#,
    );
}

#[test]
fn unset_variables_are_named_and_cause_no_other_errors() {
    check(
        &[&around(
            r#"[sources.s]
type = 'test_source'
address = '${NOPE}'
headers = { X = 'a ${NOPE_EITHER}' }
"#,
        )],
        r#"
error: environment variable NOPE is not set
  --> a.toml:10:11
   |
10 | address = '${NOPE}'
   |           ^^^^^^^^^
   |
   = help: set it, or give a default: ${NOPE:-default}

error: environment variable NOPE_EITHER is not set
  --> a.toml:11:17
   |
11 | headers = { X = '**${NOPE_EITHER}' }
   |                 ^^^^^^^^^^^^^^^^^^
   |
   = help: set it, or give a default: ${NOPE_EITHER:-default}
"#,
    );
}

#[test]
fn text_that_looks_like_a_variable_is_an_error_and_causes_no_other() {
    check(
        &[&around(
            r#"[sources.s]
type = 'test_source'
address = '${a/b}'
headers = { X = 'a ${TOKEN-}' }
"#,
        )],
        r#"
error: ${ does not begin a variable
  --> a.toml:10:11
   |
10 | address = '${a/b}'
   |           ^^^^^^^^
   |
   = help: write ${NAME} or ${NAME:-default}, with letters, digits and _ in the name and no digit first; $${ is the text ${

error: ${ does not begin a variable
  --> a.toml:11:17
   |
11 | headers = { X = '***********' }
   |                 ^^^^^^^^^^^^^
   |
   = help: write ${NAME} or ${NAME:-default}, with letters, digits and _ in the name and no digit first; $${ is the text ${
"#,
    );
}

#[test]
fn secrets_are_shown_nowhere() {
    check(
        &[&around(
            r#"[sources.s]
type = 'test_source'
address = '${TOKEN}'
signal = '${TOKEN}'
[sources.s2]
type = 'test_source'
address = '127.0.0.1:2'
password = { x = 'geheim' }
[sources.s3]
type = 'test_source'
address = '127.0.0.1:3'
password = 123456
headers = { Cookie = '' }
[sources.s4]
type = 'test_source'
address = '127.0.0.1:4'
path = '${TOKEN}'
"#,
        )],
        r#"
error: sources.s.address: "***" is not an address to listen on: write an IP address and a port, such as "0.0.0.0:9201", or ":9201" for all addresses
  --> a.toml:10:11
   |
10 | address = '${TOKEN}'
   |           ^^^^^^^^^^

error: sources.s.signal: unknown value `***`
  --> a.toml:11:10
   |
11 | signal = '${TOKEN}'
   |          ^^^^^^^^^^
   |
   = help: possible values: `metrics`, `queries`

error: sources.s2.password: must be a text in quotes, not a table
  --> a.toml:15:1
   |
15 | password = { x = '******' }
   | ^^^^^^^^

error: sources.s3.password: must be a text in quotes, not a number
  --> a.toml:19:12
   |
19 | password = ******
   |            ^^^^^^

error: sources.s4.path: "***" does not start with a slash
  --> a.toml:24:8
   |
24 | path = '${TOKEN}'
   |        ^^^^^^^^^^
   |
   = help: write /path
"#,
    );
}

#[test]
fn a_name_used_twice_shows_both_places() {
    check(
        &[
            &around(""),
            r#"[transforms.in]
type = 'test_transform'
inputs = ['out']
"#,
        ],
        r#"
error: the name `in` is used twice
 --> b.toml:1:13
  |
1 | [transforms.in]
  |             ^^
  |
note: it is the name of a source here
 --> a.toml:1:10
  |
1 | [sources.in]
  |          --
  = help: names are unique across sources, transforms, sinks and files
"#,
    );
}

#[test]
fn global_keys_are_set_once_and_have_their_types() {
    check(
        &[
            &format!(
                "{}{}",
                r#"data_dir = 1
"#,
                around(
                    r#"[api]
adress = ':1'
"#
                )
            ),
            r#"data_dir = 'x'
"#,
        ],
        r#"
error: `data_dir`: must be a path in quotes, not a number
 --> a.toml:1:12
  |
1 | data_dir = *
  |            ^

error: api: unknown key `adress`
  --> a.toml:10:1
   |
10 | adress = '**'
   | ^^^^^^
   |
   = help: did you mean `address`?

error: `data_dir` is set twice
 --> b.toml:1:1
  |
1 | data_dir = 'x'
  | ^^^^^^^^
  |
note: it is set here first
 --> a.toml:1:1
  |
1 | data_dir = *
  | --------
  = help: keep it in one file
"#,
    );
}

#[test]
fn listeners_do_not_take_each_others_ports_and_paths() {
    check(
        &[&around(
            r#"[sources.same]
type = 'test_source'
address = '127.0.0.1:1'
[sources.wild]
type = 'test_source'
address = '0.0.0.0:1'
path = '/other'
[api]
address = '127.0.0.1:1'
"#,
        )],
        r#"
error: sources.same: path "/" is taken by sources.in
  --> a.toml:10:11
   |
10 | address = '127.0.0.1:1'
   |           ^^^^^^^^^^^^^
   |
note: it is taken here
  --> a.toml:3:11
   |
 3 | address = '127.0.0.1:1'
   |           -------------
   = help: choose another path or address

error: sources.wild: address 0.0.0.0:1 overlaps with 127.0.0.1:1, which is taken by sources.in
  --> a.toml:13:11
   |
13 | address = '0.0.0.0:1'
   |           ^^^^^^^^^^^
   |
note: it is taken here
  --> a.toml:3:11
   |
 3 | address = '127.0.0.1:1'
   |           -------------
   = help: write the same address in both to share it, or choose another port

error: api: address 127.0.0.1:1 is taken by sources.in
  --> a.toml:16:11
   |
16 | address = '127.0.0.1:1'
   |           ^^^^^^^^^^^^^
   |
note: it is taken here
  --> a.toml:3:11
   |
 3 | address = '127.0.0.1:1'
   |           -------------
   = help: choose another port
"#,
    );
}

#[test]
fn names_with_dots_and_components_that_are_no_tables_are_refused() {
    check(
        &[&around(
            r#"[sinks.'b.c']
type = 'test_sink'
endpoint = 'http://x'
inputs = ['in']
[sinks]
x = 1
"#,
        )],
        r#"
error: `b.c` cannot be the name of a sink
 --> a.toml:8:8
  |
8 | [sinks.'b.c']
  |        ^^^^^
  |
  = help: a dot separates a component from its output: use `_` or `-`

error: sinks.x is not a table
  --> a.toml:13:1
   |
13 | x = *
   | ^
   |
   = help: write [sinks.x] and its keys below
"#,
    );
}

#[test]
fn sources_have_no_inputs() {
    check(
        &[&around(
            r#"[sources.s]
type = 'test_source'
address = '127.0.0.1:2'
inputs = []
"#,
        )],
        r#"
error: sources.s: unknown key `inputs`
  --> a.toml:11:1
   |
11 | inputs = []
   | ^^^^^^
   |
   = help: a source has no inputs: remove the key
"#,
    );
}

#[test]
fn a_graph_without_ends_is_refused() {
    check(
        &[r#"data_dir = 'x'
"#],
        r#"
error: the configuration has no source
 |
 = help: add a table [sources.NAME]

error: the configuration has no sink
 |
 = help: add a table [sinks.NAME]
"#,
    );
}
