//! Tokens of UAA: grants, renewal, refusals, reloads.

use super::*;

#[tokio::test]
async fn tokens_are_got_in_every_way_and_renewed_once_for_all() {
    let foundation = example();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let passcode = foundation.state().passcode();
    let refresh = foundation.state().refresh_token();
    let with_file = format!("refresh_token_file = {file:?}\n");
    std::fs::write(&file, refresh).unwrap();
    for (keys, grant) in [
        (AS_ADMIN.to_owned(), "password"),
        (format!("{AS_ADMIN}origin = \"ldap\"\n"), "password"),
        (
            "grant = \"client_credentials\"\nclient_id = \"reader\"\nclient_secret = \"client-geheim\"\n".to_owned(),
            "client_credentials",
        ),
        (format!("grant = \"refresh_token\"\n{with_file}"), "refresh_token"),
        // The refresh token that replaced the first one.
        (format!("grant = \"refresh_token\"\n{with_file}"), "refresh_token"),
        (format!("grant = \"passcode\"\npasscode = {passcode:?}\n"), "password"),
    ] {
        foundation.uaa.take();
        let running = Running::new(&foundation, &keys);
        assert_eq!(running.first().await.targets().len(), 6, "{keys}");
        let asked = foundation.uaa.only();
        let form = String::from_utf8(asked.body.clone()).unwrap();
        assert!(form.contains(&format!("grant_type={grant}")), "{form}");
        assert_eq!(form.contains("login_hint=%7B%22origin%22%3A%22ldap%22%7D"), keys.contains("origin"));
        // All tokens are revoked: one renewal, by the refresh token if there is one.
        foundation.state().revoke_tokens();
        assert_eq!(running.urls().await.len(), 6, "{keys}");
        let again = foundation.uaa.take();
        let forms = again.iter().map(|it| String::from_utf8_lossy(&it.body).into_owned());
        let forms: Vec<String> = forms.collect();
        assert_eq!(forms.len(), 1, "{keys} {forms:?}");
        let by_refresh = forms[0].contains("grant_type=refresh_token");
        assert_eq!(by_refresh, grant != "client_credentials", "{forms:?}");
    }
}

#[tokio::test]
async fn a_refresh_token_that_is_spent_gives_way_to_the_password() {
    let foundation = example();
    let running = Running::new(&foundation, AS_ADMIN);
    assert_eq!(running.urls().await.len(), 6);
    foundation.state().revoke_tokens();
    foundation.state().revoke_refresh_tokens();
    assert_eq!(running.urls().await.len(), 6);
    assert!(!running.slot.status().stale);
    assert_eq!(
        foundation.uaa.count(),
        3,
        "password, refresh token, password"
    );

    // A token revoked in the midst of a refresh.
    foundation.state().manner.revoked_in = Some(1);
    assert_eq!(running.urls().await.len(), 6);
    assert!(!running.slot.status().stale);
}

#[tokio::test]
async fn credentials_that_are_refused_are_told_of() {
    let foundation = example();
    let running = Running::new(&foundation, "username = \"admin\"\npassword = \"wrong\"\n");
    running.first().await;
    let failure = &running.slot.status().failing[0];
    assert_eq!(failure.reason.as_str(), "credentials");
    assert!(failure.text.contains("Bad credentials"), "{}", failure.text);
    assert!(!failure.text.contains("wrong"));
}

#[tokio::test]
async fn refused_credentials_are_sent_again_after_a_pause_or_on_request() {
    let foundation = example();
    for keys in [
        "username = \"admin\"\npassword = \"wrong\"\n",
        "grant = \"client_credentials\"\nclient_id = \"reader\"\nclient_secret = \"wrong\"\n",
    ] {
        foundation.uaa.take();
        foundation.controller.take();
        let running = Running::new(&foundation, keys);
        running.first().await;
        for _ in 0..3 {
            running.next().await;
        }
        let said = |pause: u64| {
            let text = running.slot.status().failing[0].text.clone();
            text.contains(&format!("not sent again for {pause} s"))
        };
        assert!(said(30));
        assert_eq!(foundation.uaa.take().len(), 1, "{keys}");
        // Only the address of UAA was asked for.
        let paths: BTreeSet<String> = foundation.asked().into_iter().collect();
        assert_eq!(paths.into_iter().collect::<Vec<_>>(), ["/"]);
        // Somebody asks for a refresh: they may have become right.
        running.slot.targets().nudge();
        let sent = timeout(Duration::from_secs(30), async {
            while !said(60) {
                running.next().await;
            }
        });
        sent.await.expect("another attempt");
        assert_eq!(foundation.uaa.take().len(), 1, "{keys}");
    }
}

#[tokio::test]
async fn a_refused_refresh_token_is_sent_once_and_one_that_replaces_it_at_once() {
    let foundation = example();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "spent-token").unwrap();
    let keys = format!("grant = \"refresh_token\"\nrefresh_token_file = {file:?}\n");
    let running = Running::new(&foundation, &keys);
    running.first().await;
    for _ in 0..3 {
        running.next().await;
    }
    assert_eq!(foundation.uaa.count(), 1);
    let text = running.slot.status().failing[0].text.clone();
    assert!(text.contains("was revoked, or is unknown"), "{text}");
    let token = foundation.state().refresh_token();
    std::fs::write(&file, token).unwrap();
    assert_eq!(running.urls().await.len(), 6);
}

#[tokio::test]
async fn a_login_outlives_a_reload_even_one_in_the_midst_of_it() {
    let foundation = example();
    let cx = ProviderContext::alone("cf");
    let passcode = foundation.state().passcode();
    let keys = format!("grant = \"passcode\"\npasscode = {passcode:?}\n");
    let running = Running::within(&cx, &foundation, &keys, None);
    assert_eq!(running.first().await.targets().len(), 6);
    // A reload builds a successor beside it, as for another interval.
    let reloaded = Running::within(
        &cx,
        &foundation,
        &format!("{keys}timeout = \"19s\"\n"),
        None,
    );
    drop(running);
    assert_eq!(reloaded.first().await.targets().len(), 6);
    assert_eq!(foundation.uaa.count(), 1);
    // The next reload comes while UAA has taken the refresh token and not answered yet.
    foundation.state().manner.uaa_hangs = true;
    foundation.state().revoke_tokens();
    timeout(Duration::from_secs(30), async {
        while foundation.uaa.count() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("a request for a token");
    let again = Running::within(&cx, &foundation, &keys, None);
    drop(reloaded);
    foundation.state().manner.uaa_hangs = false;
    foundation.uaa.release();
    assert_eq!(again.first().await.targets().len(), 6);
    assert_eq!(foundation.uaa.count(), 2);
    // Another passcode is another login.
    let other = foundation.state().passcode();
    let keys = format!("grant = \"passcode\"\npasscode = {other:?}\n");
    let other = Running::within(&cx, &foundation, &keys, None);
    assert_eq!(other.first().await.targets().len(), 6);
    assert_eq!(foundation.uaa.count(), 3);
}

#[tokio::test]
async fn uaa_is_found_where_old_platforms_say_it() {
    let foundation = example();
    foundation.state().manner.without_links = true;
    let running = Running::new(&foundation, AS_ADMIN);
    assert_eq!(running.first().await.targets().len(), 6);
}
