//! Compatibility with mpp: its endpoints for health, metrics and status.

use std::path::Path;
use std::sync::Arc;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};

use metrifold_base::{BoxFuture, BuildError, Problems, keys};
use metrifold_http::{
    Access, Doors, Handler, Listen, Listeners, Methods, Permission, Request, Response, Route,
    ServerKeys, answer,
};
use metrifold_replicas::Router;

keys! {
    /// HTTP endpoint for the paths of mpp.
    #[derive(Clone, Debug)]
    pub(super) struct MppKeys {
        server: ServerKeys = include,
        /// Path prefix of `/health`, `/metrics` and `/status`.
        path: String = default("/mpp"),
    }
}

/// One of the endpoints.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pages {
    Health,
    Metrics,
    Status,
}

impl Pages {
    const ALL: [Self; 3] = [Self::Health, Self::Metrics, Self::Status];

    fn path(self) -> &'static str {
        match self {
            Self::Health => "/health",
            Self::Metrics => "/metrics",
            Self::Status => "/status",
        }
    }

    /// The handler of the endpoint.
    pub(super) fn handler(self, router: Arc<Router>) -> Arc<dyn Handler> {
        Arc::new(Page { page: self, router })
    }
}

impl MppKeys {
    fn listen(&self, page: Pages) -> Listen {
        let path = format!("{}{}", self.path.trim_end_matches('/'), page.path());
        self.server.listen(&path, Methods::GET)
    }

    pub(super) fn listens(&self) -> impl Iterator<Item = Listen> {
        Pages::ALL.into_iter().map(|page| self.listen(page))
    }

    pub(super) fn files(&self) -> Vec<&Path> {
        self.server.files()
    }

    pub(super) fn access(&self, doors: &dyn Doors) -> Result<Arc<dyn Access>, BuildError> {
        self.server.access(doors, |_| Permission::Read)
    }

    pub(super) fn routes(
        &self,
        listeners: &Listeners,
        id: &Arc<str>,
    ) -> Result<Vec<(Pages, Route)>, BuildError> {
        let mut routes = Vec::new();
        for page in Pages::ALL {
            routes.push((page, listeners.route(&self.listen(page), id)?));
        }
        Ok(routes)
    }

    pub(super) fn validate(&self, problems: &mut Problems) {
        if self.path.contains(['{', '}']) {
            problems.at("path", "must be a fixed path");
            return;
        }
        self.server
            .validate(&self.listen(Pages::Health).path, problems);
    }
}

struct Page {
    page: Pages,
    router: Arc<Router>,
}

impl Handler for Page {
    fn handle(self: Arc<Self>, _: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            let typed = |content: &'static str, text: String| {
                let mut answer = Response::new(text.into());
                let content = HeaderValue::from_static(content);
                answer.headers_mut().insert(CONTENT_TYPE, content);
                answer
            };
            match self.page {
                Pages::Health => match self.router.standing() {
                    (0, _) => {
                        let text = "no replica can be queried";
                        answer::text(StatusCode::SERVICE_UNAVAILABLE, text)
                    }
                    _ => answer::text(StatusCode::OK, "OK"),
                },
                Pages::Metrics => typed(
                    "text/plain; version=0.0.4; charset=utf-8",
                    self.router.mpp_metrics(),
                ),
                Pages::Status => typed("text/html; charset=utf-8", self.router.status_page()),
            }
        })
    }
}
