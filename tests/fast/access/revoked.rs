//! Certificate revocation lists that are replaced under load.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use metrifold_testing::{Authority, Endpoint, Metrifold, Sender, until, up};

type Identity = (PathBuf, PathBuf);

/// Background senders with valid certificates, over kept and over new connections, until
/// [`Others::stop`]. Each of their writes must be accepted.
struct Others {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Others {
    fn start(gateway: &Metrifold, authority: &Authority, identities: &[Identity]) -> Self {
        let (stop, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let threads = identities.iter().enumerate().map(|(number, identity)| {
            let tls = authority.client(Some(identity.clone()));
            let (address, stop, written) = (gateway.ingest, stop.clone(), written.clone());
            std::thread::spawn(move || {
                let mut sender = Sender::tls(address, &tls);
                while !stop.load(Ordering::Relaxed) {
                    if number % 2 == 0 {
                        sender = Sender::tls(address, &tls);
                    }
                    assert_eq!(sender.write(&up(1)).status, 204);
                    written.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        Self {
            threads: threads.collect(),
            stop,
            written,
        }
    }

    /// Waits for 50 further accepted writes.
    #[track_caller]
    fn go_on(&self) {
        let before = self.written.load(Ordering::Relaxed);
        until("others go on", || {
            assert!(self.threads.iter().all(|it| !it.is_finished()));
            (self.written.load(Ordering::Relaxed) > before + 50).then_some(())
        });
    }

    #[track_caller]
    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|it| it.join().unwrap());
    }
}

/// Replaces a file atomically.
fn replace(file: &Path, text: &str) {
    let next = file.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, file).unwrap();
}

fn identities(authority: &Authority) -> (Vec<Identity>, Identity) {
    let others = ["one", "two", "three", "four"].map(|name| authority.issue(name));
    (others.into(), authority.issue("agent"))
}

#[test]
fn a_list_of_a_listener_is_replaced_under_load() {
    let (authority, endpoint) = (Authority::new(), Endpoint::healthy());
    let (others, agent) = identities(&authority);
    let (cert, key) = authority.issue("server");
    let list = authority.ca().with_file_name("revoked.pem");
    fs::write(&list, authority.revocations(1, &[])).unwrap();
    let gateway = Metrifold::start(&format!(
        "[sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
         [sources.ingest.tls]\ncert_file = {cert:?}\nkey_file = {key:?}\n\
         client_ca_file = {:?}\nclient_crl_file = {list:?}\n\
         [sinks.thanos]\ntype = \"thanos\"\ninputs = [\"ingest\"]\nendpoint = \"{}\"\n",
        authority.ca(),
        endpoint.url(),
    ));
    let tls = authority.client(Some(agent.clone()));
    let send = || Sender::tls(gateway.ingest, &tls).try_post("/api/v1/write", &[], &up(1));
    let let_in = || send().is_ok_and(|answer| answer.status == 204);
    let load = Others::start(&gateway, &authority, &others);
    load.go_on();
    assert!(let_in());
    replace(&list, &authority.revocations(2, &[&agent.0]));
    until("the revoked certificate is refused", || {
        (!let_in()).then_some(())
    });
    load.go_on();
    assert!(!let_in());
    // An unreadable list changes nothing: the previous one stays in force.
    replace(&list, "no list\n");
    until("it was noticed", || {
        gateway
            .log()
            .contains("list of revoked certificates")
            .then_some(())
    });
    load.go_on();
    assert!(!let_in());
    replace(&list, &authority.revocations(3, &[]));
    until("it is let in again", || let_in().then_some(()));
    load.stop();
    replace(&list, &authority.expired_revocations(4));
    until("an expired list vouches for nobody", || {
        (!let_in()).then_some(())
    });
}

#[test]
fn a_list_of_a_tenant_is_replaced_under_load_and_holds_for_open_connections() {
    let (authority, endpoint) = (Authority::new(), Endpoint::healthy());
    let (others, agent) = identities(&authority);
    let (cert, key) = authority.issue("server");
    let list = authority.ca().with_file_name("revoked.pem");
    fs::write(&list, authority.revocations(1, &[])).unwrap();
    let gateway = Metrifold::start(&format!(
        "[tenants.acme.mtls]\nca_file = {:?}\ncrl_file = {list:?}\nsubject = \"common_name\"\n\
         [roles.w]\ntenants = [\"acme\"]\npermissions = [\"write\"]\n\
         [role_bindings.w]\nroles = [\"w\"]\nsubjects = [{}]\n\
         [sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\naccess = \"tenants\"\n\
         tls = {{ cert_file = {cert:?}, key_file = {key:?}, client_auth = \"tenants\" }}\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\n\
         [sinks.thanos]\ntype = \"thanos\"\ninputs = [\"tenant\"]\nendpoint = \"{}\"\n",
        authority.ca(),
        ["one", "two", "three", "four", "agent"]
            .map(|name| format!("{{ name = {name:?} }}"))
            .join(", "),
        endpoint.url(),
    ));
    let tls = authority.client(Some(agent.clone()));
    let mut sender = Sender::tls(gateway.ingest, &tls);
    let load = Others::start(&gateway, &authority, &others);
    load.go_on();
    assert_eq!(sender.write(&up(1)).status, 204);
    replace(&list, &authority.revocations(2, &[&agent.0]));
    until("the revoked certificate is good no more", || {
        (sender.write(&up(1)).status == 401).then_some(())
    });
    load.go_on();
    replace(&list, &authority.revocations(3, &[]));
    until("it is let in again", || {
        (sender.write(&up(1)).status == 204).then_some(())
    });
    load.stop();
}
