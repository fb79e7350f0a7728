//! `route`: sends series to named outputs by selectors.
//!
//! A series goes to every route that selects it, and to the output `rest` if none does. Metadata of
//! metric families goes to all outputs. A batch whose series all go to one route is passed on
//! without a copy.
//!
//! Delivery: nothing is dropped here; an output without a consumer is a matter of the graph.
//!
//! Limits: a selector is bounded in length, a transform has at most 256 routes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use metrifold_base::keys::{Keys, Shape, Shaped};
use metrifold_base::{BuildError, Problems, keys};
use metrifold_codec::Batch;
use metrifold_engine::component::{
    BuildContext, BuildTransform, ComponentInfo, TransformConfig, TransformPorts,
};
use metrifold_engine::planes::metrics::{Emitter, Metrics, Plan, Transform};
use metrifold_expr::matchers::Matchers;
use metrifold_model::{Kind, Rejection};

/// Output for series that no route selects.
const REST: &str = "rest";
const MAX_ROUTES: usize = 256;

keys! {
    /// `[transforms.split] type = "route"`.
    #[derive(Debug)]
    pub struct RouteConfig {
        /// PromQL series selector of each output, or a list of selectors of which one must match. Series that match no output go to the output `rest`.
        routes: BTreeMap<String, Selectors> = required({ node = "{__name__=~'node_.*'}" }),
    }
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Transform,
        name: "route",
        summary: "Routes series to named outputs by PromQL selectors.",
        keys: RouteConfig::ENTRIES,
    }
}

/// One selector, or a list of alternatives.
#[derive(Debug)]
struct Selectors {
    texts: Vec<String>,
    list: bool,
}

impl Shaped for Selectors {
    const SHAPE: Shape = Shape::OneOrMany(&Shape::Text);
}

impl<'de> Deserialize<'de> for Selectors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SelectorsVisitor;

        impl<'de> Visitor<'de> for SelectorsVisitor {
            type Value = Selectors;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a selector such as '{job=\"x\"}', or a list of selectors")
            }

            fn visit_str<E>(self, text: &str) -> Result<Selectors, E> {
                Ok(Selectors {
                    texts: vec![text.to_owned()],
                    list: false,
                })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Selectors, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = seq.next_element()? {
                    texts.push(text);
                }
                Ok(Selectors { texts, list: true })
            }
        }

        deserializer.deserialize_any(SelectorsVisitor)
    }
}

impl RouteConfig {
    fn compile(&self, problems: &mut Problems) -> Route {
        if self.routes.is_empty() {
            let help = "add routes.NAME = '{label=\"value\"}'";
            problems.at("routes", "no routes are given").help(help);
        }
        if self.routes.len() > MAX_ROUTES {
            problems.at("routes", format!("more than {MAX_ROUTES} routes"));
        }
        let mut routes = Vec::new();
        for (name, selectors) in &self.routes {
            let path = format!("routes.{name}");
            if name == REST {
                let message = "the name rest is reserved for series that no route selects";
                problems.at(&path, message).help("choose another name");
            }
            let valid = |c: char| c == '_' || c == '-' || c.is_ascii_alphanumeric();
            if name.is_empty() || !name.chars().all(valid) {
                let message = format!("{name:?} is not a name for an output");
                problems
                    .at(&path, message)
                    .help("use letters, digits, _ and -");
            }
            if selectors.texts.is_empty() {
                problems.at(&path, "route has no selectors").help("add one");
            }
            let mut alternatives = Vec::new();
            for (index, text) in selectors.texts.iter().enumerate() {
                match Matchers::parse(text) {
                    Ok(matchers) => alternatives.push(matchers),
                    Err(error) if selectors.list => {
                        problems.at(format!("{path}[{index}]"), error);
                    }
                    Err(error) => {
                        problems.at(&path, error);
                    }
                }
            }
            routes.push(alternatives);
        }
        Route { routes }
    }

    fn make(&self) -> Result<Route, BuildError> {
        let mut problems = Problems::new(true);
        let route = self.compile(&mut problems);
        match problems.into_list().into_iter().next() {
            None => Ok(route),
            Some(problem) => Err(BuildError::new(problem.path, problem.message)),
        }
    }
}

#[typetag::deserialize(name = "route")]
impl TransformConfig for RouteConfig {
    fn ports(&self) -> TransformPorts<'_> {
        TransformPorts {
            metrics: Some(self),
            ..TransformPorts::default()
        }
    }

    fn outputs(&self) -> Vec<String> {
        let rest = std::iter::once(REST.to_owned());
        self.routes.keys().cloned().chain(rest).collect()
    }

    fn validate(&self, problems: &mut Problems) {
        self.compile(problems);
    }
}

impl BuildTransform<Metrics> for RouteConfig {
    fn build(&self, _cx: &BuildContext) -> Result<Arc<dyn Transform>, BuildError> {
        Ok(Arc::new(self.make()?))
    }
}

#[derive(Debug)]
struct Route {
    /// The alternative selectors of each route, in the order of the outputs.
    routes: Vec<Vec<Matchers>>,
}

impl Transform for Route {
    fn plan(&self, _batch: &mut Batch) -> Result<Plan<'_>, Rejection> {
        Ok(Plan::Split(Box::new(|batch, out| self.split(batch, out))))
    }
}

impl Route {
    /// Emits to each output the series that its route selects.
    fn split(&self, mut batch: Batch, out: &mut Emitter<'_>) -> Result<(), Rejection> {
        let arena = batch.arena()?.clone();
        // Indexes of the series of each output, those of `rest` last.
        let mut selected = vec![Vec::new(); self.routes.len() + 1];
        let mut all = 0;
        for series in arena.iter() {
            all += 1;
            let mut found = false;
            for (route, alternatives) in self.routes.iter().enumerate() {
                if alternatives.iter().any(|matchers| matchers.matches(series)) {
                    selected[route].push(series.index());
                    found = true;
                }
            }
            if !found {
                selected[self.routes.len()].push(series.index());
            }
        }
        for (output, indexes) in selected.iter().enumerate() {
            if indexes.len() == all && !arena.counts().is_empty() {
                out.emit_to(output, batch.clone());
            } else if !indexes.is_empty() || arena.counts().metadata > 0 {
                out.emit_to(output, batch.with_arena(arena.extract(true, indexes)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use metrifold_model::Version;

    use super::super::testing::{Labels, apply, batch, labels, origin};
    use super::*;

    fn route(text: &str) -> Route {
        toml::from_str::<RouteConfig>(text).unwrap().make().unwrap()
    }

    fn series(names: &[&str]) -> Vec<Labels> {
        names
            .iter()
            .map(|&name| labels(&[("__name__", name), ("a", "b")]))
            .collect()
    }

    fn numbers(
        route: &Route,
        names: &[&str],
        metadata: &[&str],
    ) -> Vec<(usize, Vec<usize>, usize)> {
        let (_, outcome) = apply(route, batch(&series(names), metadata, origin())).unwrap();
        let emitted = outcome.emitted.into_iter();
        emitted
            .map(|(output, _, series, metadata)| {
                (
                    output,
                    series.into_iter().map(|(_, number)| number).collect(),
                    metadata,
                )
            })
            .collect()
    }

    const ROUTES: &str =
        r#"routes = { a = '{__name__=~"a.*"}', ab = ['ab', '{__name__="b"}'], z = 'z' }"#;

    #[test]
    fn a_series_goes_to_every_route_that_selects_it_and_else_to_the_rest() {
        let route = route(ROUTES);
        assert_eq!(
            numbers(&route, &["a", "ab", "b", "c"], &[]),
            [(0, vec![0, 1], 0), (1, vec![1, 2], 0), (3, vec![3], 0)]
        );
        assert_eq!(numbers(&route, &[], &[]), []);
    }

    #[test]
    fn metadata_goes_to_all_outputs() {
        let route = route(ROUTES);
        assert_eq!(
            numbers(&route, &["z", "a"], &["f"]),
            [
                (0, vec![1], 1),
                (1, vec![], 1),
                (2, vec![0], 1),
                (3, vec![], 1)
            ]
        );
        let all: Vec<_> = (0..4).map(|output| (output, vec![], 1)).collect();
        assert_eq!(numbers(&route, &[], &["f"]), all);
    }

    #[test]
    fn a_batch_that_stays_whole_keeps_its_body() {
        let route = route(ROUTES);
        let mut whole = batch(&series(&["ab", "ab"]), &[], origin());
        let body = whole.body(Version::V1).unwrap();
        let (mut batches, _) = apply(&route, whole).unwrap();
        assert_eq!(batches.len(), 2);
        for batch in &mut batches {
            assert_eq!(batch.body(Version::V1).unwrap().as_ptr(), body.as_ptr());
        }
    }

    #[test]
    fn outputs_are_named_and_problems_stand_at_their_keys() {
        let config: RouteConfig = toml::from_str(ROUTES).unwrap();
        assert_eq!(config.outputs(), ["a", "ab", "z", "rest"]);
        let text = r#"routes = { rest = 'a', "b c" = '{', d = [], e = ['x', '{y}'] }"#;
        let config: RouteConfig = toml::from_str(text).unwrap();
        let mut problems = Problems::new(false);
        TransformConfig::validate(&config, &mut problems);
        let list = problems.into_list();
        let paths: Vec<_> = list.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "routes.b c",
                "routes.b c",
                "routes.d",
                "routes.e[1]",
                "routes.rest"
            ]
        );
        assert!(toml::from_str::<RouteConfig>("routes = { a = 1 }").is_err());
        let config: RouteConfig = toml::from_str("routes = {}").unwrap();
        assert!(config.make().is_err());
    }
}
