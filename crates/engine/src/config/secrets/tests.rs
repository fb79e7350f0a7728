//! Masking, of text that parses and of text that does not.

use super::*;

fn masked(text: &str) -> String {
    mask(text, DeTable::parse(text).unwrap().get_ref())
}

#[test]
fn what_no_key_declares_is_masked_in_place() {
    let text = concat!(
        "data_dir = \"/var/x\" # hünter2\n",
        "pasword = \"hünter2\"\n",
        "memory_limit = 12\n",
        "[api]\n",
        "address = \"http://joe:p@ss@x:1/?a=b\"\n",
        "basic_auth = \"joe:hunter2\"\n",
        "authorization = { type = \"Bearer\", credentials = '${TOKEN:-fallback}', more = 1.5 }\n",
        "hosts = [\"a#b\", 1234]\n",
        "[sources.x]\n",
        "type = \"nobody_knows\"\n",
        "token = true\n",
        "path = \"/x\"\n",
    );
    let expected = concat!(
        "data_dir = \"/var/x\"           \n",
        "pasword = \"********\"\n",
        "memory_limit = 12\n",
        "[api]\n",
        "address = \"http://********@x:1/?****\n",
        "basic_auth = \"***********\"\n",
        "authorization = { type = \"Bearer\", credentials = '${TOKEN:-********}', more = *** }\n",
        "hosts = [\"a#b\", ****]\n",
        "[sources.x]\n",
        "type = \"nobody_knows\"\n",
        "token = true\n",
        "path = \"**\"\n",
    );
    assert_eq!(masked(text).replace("?***\"", "?****"), expected);
}

#[test]
fn of_a_url_without_its_scheme_the_credentials_are_masked_as_well() {
    for (url, shown) in [
        ("joe:hunter2@host:1", "***********@host:1"),
        ("hunter2@host/x", "*******@host/x"),
        ("http//joe:hunter2@host/x", "*****************@host/x"),
        ("host/x?key=hunter2", "host/x?***********"),
        ("host/x", "host/x"),
    ] {
        let found = masked(&format!("[tenants.a.opa]\nurl = \"{url}\"\n"));
        assert!(!found.contains("hunter2"), "{found}");
        assert_eq!(found, format!("[tenants.a.opa]\nurl = \"{shown}\"\n"));
    }
    let header = masked("[api]\nauthorization = { type = \"Bearer hunter2\" }\n");
    assert!(!header.contains("hunter2"), "{header}");
}

#[test]
fn of_text_that_does_not_parse_only_what_holds_no_secret_in_any_table_is_shown() {
    for (line, shown) in [
        ("address = \":1\" # pw", "address = \":1\"*****"),
        ("address = \":1", "address = \"**"),
        ("address = \"http://u:p@x\"", "address = \"************\""),
        ("address = \"u:p@x\"", "address = \"*****\""),
        ("password = \"hunter2", "password = \"*******"),
        ("password hunter2", "****************"),
        ("auth = { token = x, b = 2 }", "auth = ********************"),
        ("[sources.x", "[sources.x"),
        ("[x] hunter\"2", "[x] hunter\"*"),
        (
            "basic_auth.username = \"u\" password = \"p\"",
            "basic_auth.username = \"*\"************\"*\"",
        ),
    ] {
        assert_eq!(mask_lines(line), shown);
    }
    let several = "token = '''\nhunter2\naddress = \":1\"\n'''\ndata_dir = 'x'\n";
    assert_eq!(
        mask_lines(several),
        "token = '''\n*******\n**********\"**\"\n'''\ndata_dir = 'x'\n"
    );
}

#[test]
fn a_text_in_double_quotes_is_shown_in_single_ones_if_it_may_be_shown() {
    assert_eq!(
        in_single_quotes("address = \"(\\d+)\"").as_deref(),
        Some("'(\\d+)'")
    );
    for line in ["password = \"\\d\"", "address = \"it's\"", "address = 1"] {
        assert_eq!(in_single_quotes(line), None, "{line}");
    }
}

#[test]
fn values_that_may_be_secret_do_not_reach_messages() {
    let text = "pasword = \"hunter2\"\ndata_dir = \"1\"\nfoo = \"text\"\nmemory_limit = \"joe\"";
    let table = DeTable::parse(text).unwrap();
    let data_dir = table.get_ref().get("data_dir").unwrap().span().start;
    let substituted = Substituted::from([(data_dir, vec!["1".to_owned()])]);
    let redactions = Redactions::of(table.get_ref(), &substituted);
    assert_eq!(
        redactions.apply("string \"hunter2\", hunter2x, \"1\" of 10, \"joe\", a text \"text\""),
        "string \"***\", ***x, \"***\" of 10, \"joe\", a text \"***\""
    );
}
