//! Many reloads in a row leak nothing. The test has a process of its own, since descriptors of
//! other tests would be counted.

use metrifold_testing::{Endpoint, Sender, alone, body, free_address, one, until_so};

use crate::in_process::Live;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_thousand_reloads_leave_nothing_behind() {
    alone(
        "reload_leaks::a_thousand_reloads_leave_nothing_behind",
        thousand_reloads,
    );
}

fn thousand_reloads() {
    let (addresses, endpoint) = ([free_address(), free_address()], Endpoint::healthy());
    let config = |n: usize| {
        // Names, the address and the types of components change.
        let (address, kind) = (addresses[n % 2], ["remote_write", "thanos"][n / 2 % 2]);
        format!(
            "[sources.a{n}]\ntype = \"remote_write\"\naddress = \"{address}\"\n\
             [transforms.t{n}]\ntype = \"relabel\"\ninputs = [\"a{n}\"]\nrules = [{{ target_label = \"via\", replacement = \"{n}\" }}]\n\
             [sinks.z{n}]\ntype = \"remote_write\"\ninputs = [\"t{n}\"]\nendpoint = \"{url}\"\n\
             [sinks.same]\ntype = \"{kind}\"\ninputs = [\"t{n}\"]\nendpoint = \"{url}\"\n\
             [sinks.page]\ntype = \"prometheus_exporter\"\ninputs = [\"t{n}\"]\naddress = \"{address}\"\npath = \"/{n}\"\n",
            url = endpoint.url()
        )
    };
    let mut live = Live::start(&config(0));
    let write = |n: usize| {
        let answer = Sender::new(addresses[n % 2]).write(&body(&[one("up", n as i64)]));
        assert_eq!(answer.status, 204, "{}", answer.text());
    };
    let measure = |live: &Live, n: usize| {
        let there = [format!("a{n}"), format!("t{n}"), format!("z{n}")];
        until_so("what was replaced is gone", || {
            let page = live.page();
            let ids = page.lines().filter_map(|line| {
                let (_, rest) = line.split_once("component_id=\"")?;
                rest.split('"').next()
            });
            let mut old = ids.filter(|id| !["same", "page"].contains(id));
            old.all(|id| there.iter().any(|there| there == id))
        });
        let series = live.page().lines().filter(|l| !l.starts_with('#')).count();
        (
            live.runtime.metrics().num_alive_tasks(),
            descriptors(),
            series,
        )
    };
    for n in 1..=8 {
        live.reload(&config(n));
        write(n);
    }
    let before = measure(&live, 8);
    for n in 9..=1008 {
        live.reload(&config(n));
        if n % 8 == 0 {
            write(n);
        }
    }
    until_so("nothing more is left than before", || {
        measure(&live, 1008) <= before
    });
    let after = measure(&live, 1008);
    assert!(
        after.0 <= before.0 && after.1 <= before.1 && after.2 <= before.2,
        "{before:?} {after:?}"
    );
    assert_eq!(live.stop(), []);
}
