//! Queries that go to several replicas.

use super::*;

/// An answer to a range query: one series with these points.
fn range(points: &'static str) -> Does {
    Box::new(move |_| {
        Box::pin(async move {
            let text = format!(
                "{{\"status\":\"success\",\"data\":{{\"resultType\":\"matrix\",\"result\":[{{\"metric\":{{}},\"values\":[{points}]}}]}}}}"
            );
            Response::new(text.into())
        })
    })
}

#[tokio::test]
async fn answers_of_several_are_merged_and_one_that_is_missing_is_told() {
    let one = serve(range("[1,\"0\"],[2,\"2\"],[5,\"5\"]"));
    let two = serve(range("[1,\"9\"],[3,\"3\"],[4,\"4\"]"));
    let text = "strategy = \"merge\"\nmerge = { wait = \"50ms\" }";
    let router = router(text, &[&one.url, &two.url]);
    let ask = || Ask {
        uri: Uri::from_static("/api/v1/query_range?query=x&start=1&end=5&step=1"),
        ..ask()
    };
    probed(&router, async {
        let (status, text, served) = asked(&router, ask()).await;
        assert_eq!(status, 200);
        let values = "[1,\"0\"],[2,\"2\"],[3,\"3\"],[4,\"4\"],[5,\"5\"]";
        assert!(text.contains(values), "{text}");
        assert_eq!(served, format!("{}, {}", one.url, two.url));
        two.now(hangs());
        let (status, text, _) = asked(&router, ask()).await;
        assert_eq!(status, 200);
        assert!(
            text.contains(&format!("replica {} did not answer", two.url)),
            "{text}"
        );
        assert!(!text.contains("[3,"), "{text}");
        one.now(answers(422, "bad query"));
        two.now(answers(422, "bad query"));
        assert_eq!(asked(&router, ask()).await.0, 422);
    })
    .await;
}

#[tokio::test]
async fn an_error_that_depends_on_the_data_is_not_hidden_by_a_replica_that_lacks_it() {
    let lacks = serve(range(""));
    let has = serve(answers(
        422,
        "vector cannot contain the same labelset twice",
    ));
    for urls in [[&lacks.url, &has.url], [&has.url, &lacks.url]] {
        let router = router("strategy = \"merge\"", &urls.map(|url| &**url));
        let ask = Ask {
            uri: Uri::from_static("/api/v1/query_range?query=-x&start=1&end=5&step=1"),
            ..ask()
        };
        probed(&router, async {
            let (status, text, served) = asked(&router, ask).await;
            assert_eq!((status, served), (422, has.url.clone()), "{text}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_good_answer_is_merged_though_another_replica_does_not_know_the_query() {
    // Of an older version, which does not know the function.
    let old = serve(answers(400, "unknown function"));
    let one = serve(range("[1,\"1\"]"));
    let router = router("strategy = \"merge\"", &[&old.url, &one.url]);
    let ask = || Ask {
        uri: Uri::from_static("/api/v1/query_range?query=x&start=1&end=5&step=1"),
        ..ask()
    };
    probed(&router, async {
        let (status, text, served) = asked(&router, ask()).await;
        assert_eq!((status, served), (200, one.url.clone()), "{text}");
        assert!(
            text.contains(&format!("replica {} answered 400", old.url)),
            "{text}"
        );
    })
    .await;
}

#[tokio::test]
async fn what_all_replicas_fail_is_retried_elsewhere_within_the_budget() {
    let servers = [(); 3].map(|()| serve(answers(502, "the reason")));
    let urls = servers.each_ref().map(|it| &*it.url);
    let all = || servers.each_ref().map(Served::asked);
    let ask = || Ask {
        uri: Uri::from_static("/api/v1/query_range?query=x&start=1&end=5&step=1"),
        ..ask()
    };
    let text = "strategy = \"merge\"\nmax_fails = 0\n\
                retry = { budget_start = 1, budget_percent = 0 }";
    let router = router(text, &urls);
    probed(&router, async {
        for expected in [3, 5, 7] {
            let (status, text, _) = asked(&router, ask()).await;
            assert_eq!((status, &*text), (502, "the reason"));
            assert_eq!(all().iter().sum::<usize>(), expected, "{:?}", all());
            // The retry goes to the one that was not asked before.
            assert!(expected > 3 || all() == [1, 1, 1], "{:?}", all());
        }
    })
    .await;
}

#[tokio::test]
async fn an_error_of_the_query_itself_is_not_asked_for_again() {
    let timed_out = || -> Does {
        Box::new(|_| {
            Box::pin(async {
                let mut answer = answered(503, "{\"errorType\":\"timeout\"}");
                let json = HeaderValue::from_static("application/json");
                answer
                    .headers_mut()
                    .insert(http::header::CONTENT_TYPE, json);
                answer
            })
        })
    };
    let servers = [(); 3].map(|()| serve(timed_out()));
    let urls = servers.each_ref().map(|it| &*it.url);
    let router = router("strategy = \"merge\"", &urls);
    let ask = Ask {
        uri: Uri::from_static("/api/v1/query_range?query=x&start=1&end=5&step=1"),
        ..ask()
    };
    probed(&router, async {
        let (status, text, _) = asked(&router, ask).await;
        assert_eq!((status, &*text), (503, "{\"errorType\":\"timeout\"}"));
        assert_eq!(servers.iter().map(Served::asked).sum::<usize>(), 2);
    })
    .await;
}
