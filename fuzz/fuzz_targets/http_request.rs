//! Requests as bytes: a listener answers or closes whatever comes, and a handler sees only paths that
//! can be read in one way.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use metrifold_http::{
    Body, Everybody, Handler, Listen, Listeners, Methods, Request, Response, Route, Serving,
};

struct Checks;

impl Handler for Checks {
    fn handle(
        self: Arc<Self>,
        request: Request,
    ) -> std::pin::Pin<Box<dyn Future<Output = Response> + Send>> {
        let tenant = request.param("tenant").expect("the path has it");
        assert!(!tenant.is_empty() && tenant != "." && tenant != "..");
        assert!(!tenant.contains(['/', '\0']), "{tenant:?}");
        assert!(request.headers.get_all("host").iter().count() <= 1);
        Box::pin(async { Response::new(Body::empty()) })
    }
}

struct Server {
    runtime: Runtime,
    route: Route,
    _serving: Serving,
    _listeners: Listeners,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let listeners = Listeners::new();
    let mut listen = Listen::new(([127, 0, 0, 1], 0).into(), "/{tenant}/write");
    listen.methods = Methods::GET.and(Methods::POST);
    let route = listeners.route(&listen, "fuzz").expect("a free port");
    let serving = route.serve(Arc::new(Everybody), Arc::new(Checks));
    let inside = runtime.enter();
    listeners.start();
    drop(inside);
    Server {
        runtime,
        route,
        _serving: serving,
        _listeners: listeners,
    }
});

fuzz_target!(|bytes: &[u8]| {
    let server = &*SERVER;
    server.runtime.block_on(async {
        let mut stream = TcpStream::connect(server.route.local_addr()).await.expect("it listens");
        let exchange = async {
            // Either fails when the listener has heard enough.
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            answer
        };
        let answer = timeout(Duration::from_secs(5), exchange).await.expect("it ends");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."));
    });
});
