//! Minimal configuration of each component, and where its output arrives.

use metrifold_model::{Kind, Signal};

use crate::balance::{self, Way};
use crate::rig::Place;

/// A component in one plane.
pub struct Recipe {
    pub kind: Kind,
    pub name: &'static str,
    pub plane: Signal,
    /// Its required keys.
    pub keys: fn(&Place) -> String,
    /// Further tables that it needs.
    pub beside: &'static str,
    /// Changes the keys so that a reload replaces the component, without an effect on its output.
    /// `None` for a component without keys.
    pub change: Option<fn(&str) -> String>,
    /// The source's key that bounds the wait for the far end.
    pub limit: Option<&'static str>,
    /// The output that is read, for a transform with named outputs.
    pub output: &'static str,
    pub feeds: Feeds,
    pub arrives: Arrives,
    /// Ways in which batches end, for a sink of metrics.
    pub ways: &'static [Way],
}

/// Origin of the units of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feeds {
    /// The test sends them.
    Test,
    /// The component generates them.
    Itself,
}

/// Place where units arrive that went through a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrives {
    /// The scripted endpoint.
    Endpoint,
    /// A page at the component's own address.
    Page,
    /// Standard output.
    Printed,
    /// The folder of rules.
    Folder,
    /// No place: only the ledger shows them.
    Nowhere,
}

impl Recipe {
    pub fn title(&self) -> String {
        format!("{}.{}", self.kind.table(), self.name)
    }
}

/// Values that most recipes share.
const COMMON: Recipe = Recipe {
    kind: Kind::Sink,
    name: "",
    plane: Signal::Metrics,
    keys: |_| String::new(),
    beside: "",
    change: None,
    limit: None,
    output: "subject",
    feeds: Feeds::Test,
    arrives: Arrives::Endpoint,
    ways: &[],
};

/// A source of metrics, with a `remote_write` sink.
const SOURCE: Recipe = Recipe {
    kind: Kind::Source,
    ..COMMON
};

/// A transform of metrics, between a source and a sink of remote write.
const TRANSFORM: Recipe = Recipe {
    kind: Kind::Transform,
    ..COMMON
};

/// Recipes of every component, one per plane.
pub static RECIPES: &[Recipe] = &[
    Recipe {
        name: "remote_write",
        keys: |_| "address = \"INGEST\"".into(),
        change: Some(|keys| format!("{keys}\nmax_labels_per_series = 7")),
        limit: Some("acknowledge_timeout"),
        ..SOURCE
    },
    Recipe {
        name: "aiven_scrape",
        // Nothing listens there: each scrape yields `up` = 0.
        keys: |_| {
            "discovery = \"nodes\"\nscrape_interval = \"100ms\"\nscrape_timeout = \"100ms\"".into()
        },
        beside: "[discovery.nodes]\ntype = \"static\"\ntargets = [\"127.0.0.1:9\"]\n\
                 labels = { __meta_aiven_host = \"es.aivencloud.example\" }\n",
        change: Some(|keys| format!("{keys}\njob = \"other\"")),
        feeds: Feeds::Itself,
        ..SOURCE
    },
    Recipe {
        name: "internal_metrics",
        keys: |_| "interval = \"100ms\"".into(),
        change: Some(|keys| format!("{keys}\nlabels = {{ job = \"other\" }}")),
        feeds: Feeds::Itself,
        ..SOURCE
    },
    Recipe {
        name: "cf_scrape",
        // Nothing listens there: each scrape yields `up` = 0.
        keys: |_| {
            "discovery = \"cf\"\nscrape_interval = \"100ms\"\nscrape_timeout = \"100ms\"".into()
        },
        beside: "[discovery.cf]\ntype = \"static\"\ntargets = [\"127.0.0.1:9\"]\n\
                 labels = { __meta_cf_app_guid = \"a\", __meta_cf_instance_number = \"0\" }\n",
        change: Some(|keys| format!("{keys}\ninstance_header = \"app\"")),
        feeds: Feeds::Itself,
        ..SOURCE
    },
    Recipe {
        name: "scrape",
        // Nothing listens there: each scrape yields `up` = 0.
        keys: |_| {
            "targets = [\"127.0.0.1:9\"]\nscrape_interval = \"100ms\"\nscrape_timeout = \"100ms\""
                .into()
        },
        change: Some(|keys| format!("{keys}\nlabels = {{ env = \"other\" }}")),
        feeds: Feeds::Itself,
        ..SOURCE
    },
    Recipe {
        name: "prometheus_api",
        plane: Signal::Queries,
        keys: |_| "address = \"INGEST\"".into(),
        change: Some(|keys| format!("{keys}\nmax_concurrent = 7")),
        limit: Some("timeout"),
        ..SOURCE
    },
    Recipe {
        name: "rules_file",
        plane: Signal::Rules,
        keys: |place| format!("files = [{:?}]", place.rules().join("*.yaml")),
        change: Some(|keys| format!("{keys}\nmax_files = 7")),
        arrives: Arrives::Folder,
        ..SOURCE
    },
    Recipe {
        name: "rules_api",
        plane: Signal::Rules,
        keys: |place| {
            let folder = place.rules();
            format!("address = \"INGEST\"\ndirectory = {folder:?}\npoll_interval = \"100ms\"")
        },
        change: Some(|keys| format!("{keys}\nmax_concurrent = 7")),
        arrives: Arrives::Folder,
        ..SOURCE
    },
    Recipe {
        name: "rules_poll",
        plane: Signal::Rules,
        keys: |place| format!("directory = {:?}\npoll_interval = \"100ms\"", place.rules()),
        change: Some(|keys| format!("{keys}\ntimeout = \"7s\"")),
        arrives: Arrives::Folder,
        ..SOURCE
    },
    Recipe {
        name: "dedupe",
        change: Some(|_| "max_clusters = 7".into()),
        ..TRANSFORM
    },
    Recipe {
        name: "limit",
        keys: |_| "max_active_series = 1000000".into(),
        change: Some(|keys| format!("{keys}\nmax_tenants = 7")),
        ..TRANSFORM
    },
    Recipe {
        name: "relabel",
        keys: |_| "rules = [{ regex = \"nothing\", action = \"labeldrop\" }]".into(),
        change: Some(|keys| format!("{keys}\nvalidation = \"legacy\"")),
        ..TRANSFORM
    },
    Recipe {
        name: "route",
        keys: |_| "routes.up = \"up\"".into(),
        change: Some(|keys| format!("{keys}\nroutes.down = \"down\"")),
        output: "subject.up",
        ..TRANSFORM
    },
    Recipe {
        name: "tenant",
        keys: |_| "from = [{ value = \"somebody\" }]".into(),
        change: Some(|keys| format!("{keys}\nmax_tenants_per_batch = 7")),
        ..TRANSFORM
    },
    Recipe {
        name: "tenant",
        plane: Signal::Queries,
        keys: |_| "from = [{ value = \"somebody\" }]\nlabel = \"tenant\"".into(),
        change: Some(|keys| format!("{keys}\nmax_tenants_per_query = 7")),
        ..TRANSFORM
    },
    Recipe {
        name: "tenant",
        plane: Signal::Rules,
        keys: |_| "from = [{ value = \"somebody\" }]\nlabel = \"tenant\"".into(),
        change: Some(|keys| format!("{keys}\nmax_tenants_per_query = 7")),
        arrives: Arrives::Folder,
        ..TRANSFORM
    },
    Recipe {
        name: "remote_write",
        keys: remote_write,
        change: Some(|keys| format!("{keys}\nconnections = 7")),
        ways: balance::REMOTE_WRITE,
        ..COMMON
    },
    Recipe {
        name: "thanos",
        keys: remote_write,
        change: Some(|keys| format!("{keys}\nconnections = 7")),
        ways: balance::REMOTE_WRITE,
        ..COMMON
    },
    Recipe {
        name: "prometheus_exporter",
        keys: |place| format!("address = \"{}\"", place.address),
        change: Some(|keys| format!("{keys}\nexpiry = \"7m\"")),
        arrives: Arrives::Page,
        ways: balance::EXPORTER,
        ..COMMON
    },
    Recipe {
        name: "console",
        arrives: Arrives::Printed,
        ways: balance::ALL,
        ..COMMON
    },
    Recipe {
        name: "blackhole",
        arrives: Arrives::Nowhere,
        ways: balance::ALL,
        ..COMMON
    },
    Recipe {
        name: "prometheus",
        plane: Signal::Queries,
        keys: |place| format!("endpoint = \"{}\"", place.endpoint.url_of("")),
        change: Some(|keys| format!("{keys}\nidle_connections = 7")),
        ..COMMON
    },
    Recipe {
        name: "ruler",
        plane: Signal::Rules,
        keys: |place| {
            let (url, folder) = (place.endpoint.url_of(""), place.written());
            format!("rulers = [{{ url = {url:?}, directory = {folder:?} }}]")
        },
        change: Some(|keys| format!("{keys}\nstatus_interval = \"7s\"")),
        arrives: Arrives::Folder,
        ..COMMON
    },
    Recipe {
        name: "replica_router",
        plane: Signal::Queries,
        keys: |place| {
            let endpoint = place.endpoint.url_of("");
            // No probes, so that the endpoint sees queries only.
            format!("replicas = [{{ endpoint = \"{endpoint}\" }}]\nprobe.interval = \"0s\"")
        },
        change: Some(|keys| format!("{keys}\nidle_connections = 7")),
        ..COMMON
    },
    Recipe {
        name: "rules_directory",
        plane: Signal::Rules,
        keys: |place| format!("path = {:?}", place.written()),
        change: Some(|keys| keys.replace("/written", "/./written")),
        arrives: Arrives::Folder,
        ..COMMON
    },
];

fn remote_write(place: &Place) -> String {
    let endpoint = place.endpoint.url();
    format!("endpoint = \"{endpoint}\"\nretry.min_backoff = \"5ms\"\nretry.max_backoff = \"20ms\"")
}
