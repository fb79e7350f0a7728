//! An HTTP/2 connection, with several requests in flight.
//!
//! The limits are those of HTTP/1.1: the age of the connection, its idle time, and the time in which
//! a caller must take an answer. A connection that exceeds one ends with GOAWAY, which tells the caller
//! which requests to retry over another connection.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::{Dispatch, Ending, MAX_HEAD, Rest, Shown};
use crate::timed::{Spare, Timed};

/// Flow control windows: bytes that are buffered before handlers read them, per request and per
/// connection.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;

/// Maximum number of requests that a caller may reset before they are processed.
const PENDING_RESETS: usize = 20;

/// Maximum number of malformed requests per connection.
const MALFORMED: usize = 64;

/// Interval of pings that detect callers that are gone.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Time from GOAWAY until an idle connection is cut, by default and when another connection waits for
/// the slot.
const GOODBYE: Duration = Duration::from_secs(1);
const EVICTED: Duration = Duration::from_millis(100);

impl Rest {
    /// Serves the connection until its end.
    pub(super) async fn serve_http2<T>(self, stream: T, shown: Shown)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self {
            peer,
            phase,
            idle_timeout,
            ..
        } = self;
        let (mut close, mut cut) = (self.close, self.cut);
        let streams = phase.multiplex();
        let io = Timed::new(
            stream,
            Arc::clone(&phase),
            self.header_timeout,
            idle_timeout,
        );
        let refusals = self.refusals.clone();
        let service = Dispatch {
            table: self.table,
            refusals: self.refusals,
            peer,
            shown,
            phase: Arc::clone(&phase),
            // HTTP/2 has no `connection: close`: the connection ends with GOAWAY instead.
            ends: None,
        };
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.max_streams)
            .max_header_list_size(MAX_HEAD as u32)
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(MALFORMED)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(MAX_HEAD)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(self.header_timeout);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));

        let ends = Instant::now() + self.max_age;
        let mut look = ends.min(Instant::now() + idle_timeout);
        // Whether `close` has fired, and whether GOAWAY was sent.
        let (mut told, mut ending) = (false, false);
        let mut goodbye = GOODBYE;
        loop {
            tokio::select! {
                biased;
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        debug!(%peer, %error, "http/2 connection failed");
                    }
                    return;
                }
                _ = cut.wait_for(|cut| *cut) => return,
                why = &mut close, if !told => {
                    told = true;
                    if why == Ok(Ending::Evicted) && phase.spare() == Some(Spare::Silent) {
                        return;
                    }
                    if why == Ok(Ending::Evicted) {
                        goodbye = EVICTED;
                    }
                    phase.close();
                    ending = true;
                }
                () = streams.flooded() => {
                    let reason = "caller reset too many requests";
                    refusals.before_request(peer, "<http/2>", reason);
                    return;
                }
                () = sleep_until(look) => {
                    let now = Instant::now();
                    let late = |since: Instant, limit: Duration| now >= since + limit;
                    if streams.stalled_since().is_some_and(|since| late(since, idle_timeout)) {
                        debug!(%peer, "caller does not read the answer");
                        return;
                    }
                    let idle = streams.idle_since();
                    if ending && idle.is_some_and(|since| late(since, goodbye)) {
                        return;
                    }
                    let rests = streams.rests_since();
                    ending |= now >= ends || rests.is_some_and(|since| late(since, idle_timeout));
                }
            }
            if ending {
                connection.as_mut().graceful_shutdown();
            }
            let stalls = streams.stalled_since().map(|since| since + idle_timeout);
            let rests = streams.rests_since().map(|since| since + idle_timeout);
            let next = Instant::now() + if ending { goodbye } else { idle_timeout };
            let times = [
                stalls,
                rests.filter(|_| !ending),
                Some(ends).filter(|_| !ending),
            ];
            look = times.into_iter().flatten().fold(next, Instant::min);
        }
    }
}

#[cfg(test)]
mod tests;
