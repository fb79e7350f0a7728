//! A real Open Policy Agent that authorizes requests instead of roles: it allows, denies, hangs and
//! dies.

use metrifold_testing::peers::opa;
use metrifold_testing::{Endpoint, Metrifold, Sender, free_address, until, up};

/// Members of the group `agents` may write; everybody else is denied.
const POLICY: &str = r#"package metrifold

default allow := false

allow if {
	input.permission == "write"
	input.tenant == "acme"
	input.tenantID == "id-acme"
	"agents" in input.groups
}
"#;

/// Tokens file with the hashes of `one` and `two` (`printf %s one | sha256sum`).
const TOKENS: &str = "\
sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed one agents
sha256:3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3 two strangers
";

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn what_an_agent_does_not_allow_is_not_done_and_nothing_while_it_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let (policy, tokens) = (file("policy.rego", POLICY), file("tokens", TOKENS));
    let (address, endpoint) = (free_address(), Endpoint::healthy());
    let agent = opa(address, &policy);
    let gateway = Metrifold::start(&format!(
        "[tenants.acme]\nid = \"id-acme\"\nbearer = {{ tokens_file = {tokens:?} }}\n\
         opa = {{ url = \"http://{address}/v1/data/metrifold/allow\", cache = \"1ms\", timeout = \"500ms\" }}\n\
         [sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\naccess = \"tenants\"\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\n\
         [sinks.thanos]\ntype = \"thanos\"\ninputs = [\"tenant\"]\nendpoint = \"{}\"\n",
        endpoint.url(),
    ));
    let write = |token: &str| {
        let value = format!("Bearer {token}");
        let headers = [("authorization", value.as_str())];
        let answer = Sender::new(gateway.ingest).post("/api/v1/write", &headers, &up(1));
        (answer.status, answer.header("retry-after").is_some())
    };
    assert_eq!(write("one"), (204, false));
    assert_eq!(write("two"), (403, false));
    assert_eq!(endpoint.count(), 1);
    // The stopped agent keeps its connections open, but does not answer.
    agent.signal("STOP");
    assert_eq!(write("one"), (503, true));
    agent.signal("CONT");
    until("it answers again", || (write("one").0 == 204).then_some(()));
    let written = endpoint.count();
    drop(agent);
    assert_eq!(write("one"), (503, true));
    assert_eq!(write("two"), (503, true));
    assert_eq!(endpoint.count(), written);
    let _agent = opa(address, &policy);
    until("it is back", || (write("one").0 == 204).then_some(()));
    assert_eq!(write("two"), (403, false));
}
