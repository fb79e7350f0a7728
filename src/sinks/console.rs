//! Prints samples to standard output, one per line, as in the text exposition format.
//!
//! Delivery: a batch is delivered once it was written. The sink is optional, so that a slow
//! terminal slows nobody. Limits: the queue's; when it is full, the oldest batches are dropped.

use std::io::{BufWriter, Write};
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};
use tokio::sync::oneshot;

use metrifold_base::keys::Keys;
use metrifold_base::{BoxFuture, BuildError, Problems, RunError, Shutdown, keys};
use metrifold_codec::{Arena, text};
use metrifold_engine::component::{
    BuildContext, BuildSink, ComponentInfo, MetricsSink, SinkConfig, SinkPort,
};
use metrifold_engine::planes::Sink;
use metrifold_engine::planes::metrics::{Form, Input, Metrics};
use metrifold_model::ledger::Reason;
use metrifold_model::{Kind, Outcome, Rejection};

keys! {
    /// Configuration of the `console` sink: it has no keys.
    #[derive(Clone, Debug)]
    pub struct ConsoleConfig {}
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Sink,
        name: "console",
        summary: "Prints samples to standard output, one per line.",
        keys: ConsoleConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "console")]
impl SinkConfig for ConsoleConfig {
    fn port(&self) -> SinkPort<'_> {
        SinkPort::Metrics(self)
    }

    fn validate(&self, _problems: &mut Problems) {}
}

impl MetricsSink for ConsoleConfig {
    fn form(&self) -> Form {
        Form::Decoded
    }
}

impl BuildSink<Metrics> for ConsoleConfig {
    fn build(&self, _cx: &BuildContext) -> Result<Box<dyn Sink<Metrics>>, BuildError> {
        Ok(Box::new(Console))
    }
}

struct Console;

/// A batch to print, and the channel for the result.
type Job = (Arc<Arena>, oneshot::Sender<std::io::Result<()>>);

/// Bytes of text that are written at once: the text of a whole batch can be a million times larger
/// than the batch, since each sample's line repeats the labels of its series.
const CHUNK: usize = 64 << 10;

/// Longest encoded native histogram that is printed, in bytes.
const HISTOGRAM_MAX: usize = 64 << 10;

impl Sink<Metrics> for Console {
    fn run(self: Box<Self>, input: Input, _shutdown: Shutdown) -> BoxFuture<Result<(), RunError>> {
        Box::pin(async move {
            // Writing to a terminal or a pipe blocks and has a thread of its own, which ends with
            // this channel. One job is in flight at a time.
            let (jobs, work) = bounded::<Job>(1);
            std::thread::Builder::new()
                .name("console".into())
                .spawn(move || write(&work))
                .map_err(|error| RunError(format!("cannot start the writer: {error}")))?;
            while let Some(mut delivery) = input.recv().await {
                let arena = match delivery.batch.arena() {
                    Ok(arena) => arena.clone(),
                    Err(error) => {
                        let rejection = Rejection::from(error);
                        delivery.count_lost(
                            Reason::of_rejected(rejection.kind),
                            delivery.batch.counts(),
                        );
                        delivery.finish(rejection.into());
                        continue;
                    }
                };
                let (done, written) = oneshot::channel();
                if jobs.try_send((arena, done)).is_err() {
                    return Err(RunError("writer has ended".into()));
                }
                match written.await {
                    Ok(Ok(())) => delivery.delivered(),
                    Ok(Err(error)) => {
                        delivery.count_lost(Reason::WriteFailed, delivery.batch.counts());
                        let reason = format!("cannot write to standard output: {error}");
                        delivery.finish(Outcome::failed(&*reason));
                        return Err(RunError(reason));
                    }
                    Err(_) => return Err(RunError("writer has ended".into())),
                }
            }
            Ok(())
        })
    }
}

fn write(work: &Receiver<Job>) {
    for (arena, done) in work {
        let mut out = BufWriter::with_capacity(CHUNK, std::io::stdout().lock());
        let result = render(&arena, &mut out).and_then(|()| out.flush());
        // Bytes that a failed flush has left are not written again when the buffer is dropped.
        let _ = out.into_parts();
        // An error means that the sink is gone and the result is not needed.
        let _ = done.send(result);
    }
}

fn render(arena: &Arena, out: &mut impl Write) -> std::io::Result<()> {
    let (mut labels, mut value) = (Vec::new(), Vec::new());
    for series in arena.iter() {
        labels.clear();
        text::put_series(&mut labels, series.labels());
        for (number, timestamp) in series.samples() {
            value.clear();
            text::put_value(&mut value, number);
            out.write_all(&labels)?;
            out.write_all(b" ")?;
            out.write_all(&value)?;
            writeln!(out, " {timestamp}")?;
        }
        for histogram in series.histograms(HISTOGRAM_MAX) {
            out.write_all(&labels)?;
            match histogram {
                Some(histogram) => writeln!(out, " {histogram:?}")?,
                None => out.write_all(b" Histogram { too large to print }\n")?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use metrifold_codec::remote_write::{Limits, decode};
    use metrifold_model::Version;

    use super::*;
    use metrifold_codec::remote_write::messages::v1;

    #[test]
    fn a_sample_is_a_line_with_its_timestamp() {
        let label = |name: &str, value: &str| v1::Label {
            name: name.into(),
            value: value.into(),
        };
        let sample = |value, timestamp| v1::Sample { value, timestamp };
        let request = v1::WriteRequest {
            timeseries: vec![v1::TimeSeries {
                labels: vec![label("__name__", "up"), label("job", "a\"b\n")],
                samples: vec![sample(1.5, 7), sample(f64::NAN, 8)],
                ..Default::default()
            }],
            metadata: vec![],
        };
        let body = snap::raw::Encoder::new()
            .compress_vec(&request.encode_to_vec())
            .unwrap();
        let (arena, _) = decode(Version::V1, &body, &Limits::default()).unwrap();
        let mut text = Vec::new();
        render(&arena, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            text,
            "up{job=\"a\\\"b\\n\"} 1.5 7\nup{job=\"a\\\"b\\n\"} NaN 8\n"
        );
    }
}
