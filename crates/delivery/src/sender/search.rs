//! Searches a batch that has blocked its lane for `retry.isolate_after` for the series on which the
//! endpoint fails with a server error, while it accepts everything else.
//!
//! Parts of the batch are halved until single series are left on which the endpoint fails. Such a
//! series is dropped if the endpoint answers a control, fails on the series again, and answers the
//! control again: then only the series can be the cause. The rest of the batch is delivered, or stays
//! as it was.

use std::collections::VecDeque;

use metrifold_codec::Batch;
use metrifold_engine::planes::metrics::{Delivery, Input, Trouble};
use metrifold_model::Tenant;
use metrifold_model::ledger::Reason;

use super::Shared;
use super::attempt::{Failed, attempt};
use crate::isolation::{Isolation, Step, depth};
use crate::pace::Permit;
use crate::stuck::Control;
use crate::transport::{Answer, Attempt, Transport};

/// Result of a search.
pub(super) enum Searched {
    /// The whole batch is delivered or dropped.
    Over,
    /// The endpoint refuses the rest of the batch for its content.
    Again,
    /// The rest of the batch is to be retried.
    Later(Trouble),
    /// The batch is left to the sink's successor.
    Left,
}

/// Result of sending a part.
enum Tried {
    Through(Control),
    Failed(Failed),
    /// The endpoint refused the request, or the part could not be encoded.
    Otherwise,
}

/// The parts of a batch that are neither delivered nor dropped.
#[derive(Default)]
struct Parts {
    /// Parts to send, the first one first.
    todo: VecDeque<Batch>,
    /// Single series on which the endpoint has failed, each with the failure.
    alone: VecDeque<(Batch, Failed)>,
    /// Parts that the endpoint refused otherwise, which the ordinary delivery handles.
    left: Vec<Batch>,
}

impl Parts {
    /// Makes the delivery hold all parts, `next` first.
    fn hold(&self, delivery: &mut Delivery, next: Option<&Batch>) {
        let alone = self.alone.iter().map(|(part, _)| part);
        let all = next.into_iter().chain(&self.todo).chain(alone);
        delivery.set_parts(all.chain(&self.left).cloned().collect());
    }

    fn is_empty(&self) -> bool {
        self.todo.is_empty() && self.alone.is_empty() && self.left.is_empty()
    }
}

impl<T: Transport> Shared<T> {
    /// Searches a batch whose next part has just failed.
    pub(super) async fn search(
        &self,
        delivery: &mut Delivery,
        failed: Failed,
        permit: &Permit<'_>,
        input: &Input,
    ) -> Searched {
        let (tenant, lane) = (delivery.batch.tenant().cloned(), delivery.lane());
        let tenant = tenant.as_ref();
        let mut control = self.stuck.control(tenant);
        if let Some(taken) = &control
            && let Err(failed) = self.ask(tenant, taken, permit).await
        {
            self.stuck.postpone(tenant, lane);
            return Searched::Later(failed.trouble);
        }
        // The batch as it stays if the search finds nothing.
        let mut whole = delivery.parts();
        let mut parts = Parts {
            todo: whole.iter().cloned().collect(),
            ..Parts::default()
        };
        // Number of failures that are accepted without a control. It suffices to find one series; if
        // nothing else is accepted meanwhile, the endpoint fails on everything.
        let series = delivery
            .batch
            .arena()
            .map_or(1, |arena| arena.iter().count());
        let mut patience = depth(series) + 1;
        let mut isolation = Isolation::default();
        let mut first = Some(failed);
        let mut touched = false;
        while let Some(part) = parts.todo.pop_front() {
            parts.hold(delivery, Some(&part));
            if input.superseded() {
                return Searched::Left;
            }
            let tried = match first.take() {
                Some(failed) => Tried::Failed(failed),
                None => self.try_part(delivery, permit).await,
            };
            match tried {
                Tried::Through(taken) => {
                    touched = true;
                    control = Some(taken);
                }
                Tried::Otherwise => parts.left.push(delivery.batch.clone()),
                Tried::Failed(failed) if !failed.server_error => {
                    if !touched {
                        delivery.set_parts(whole);
                    }
                    return Searched::Later(failed.trouble);
                }
                Tried::Failed(failed) => {
                    if control.is_none() && patience == 0 {
                        delivery.set_parts(whole);
                        self.stuck.postpone(tenant, lane);
                        return Searched::Later(failed.trouble);
                    }
                    patience = patience.saturating_sub(1);
                    let refusal = failed.as_refusal();
                    match isolation.step(&mut delivery.batch, &refusal) {
                        Step::Halves(first, second) => {
                            parts.todo.push_front(second);
                            parts.todo.push_front(first);
                        }
                        Step::Alone => parts.alone.push_back((delivery.batch.clone(), failed)),
                        Step::Mended { lost, outcome } => {
                            if self.note_mended(delivery, lost, outcome) {
                                parts.todo.push_front(delivery.batch.clone());
                            }
                            // The series that were left out are booked as lost, and must not come
                            // back.
                            parts.hold(delivery, None);
                            whole = delivery.parts();
                        }
                        Step::Together(_) => {
                            // Too many series fail to be searched one by one, so no single series is
                            // the cause.
                            parts.todo.push_front(delivery.batch.clone());
                            parts.hold(delivery, None);
                            self.stuck.postpone(tenant, lane);
                            return Searched::Later(failed.trouble);
                        }
                    }
                }
            }
        }
        if parts.is_empty() {
            self.stuck.over(tenant, lane);
            return Searched::Over;
        }
        let Some(control) = control else {
            // A single series, or several that all fail: without a control there is nothing to compare
            // with.
            let trouble = parts.alone.pop_front().map(|(_, failed)| failed.trouble);
            delivery.set_parts(whole);
            self.stuck.postpone(tenant, lane);
            return trouble.map_or(Searched::Again, Searched::Later);
        };
        match self.confirm(delivery, &mut parts, &control, permit).await {
            Err(failed) => Searched::Later(failed.trouble),
            Ok(()) if parts.is_empty() => {
                self.stuck.over(tenant, lane);
                Searched::Over
            }
            Ok(()) => {
                parts.hold(delivery, None);
                Searched::Again
            }
        }
    }

    /// Drops the series on which the endpoint fails between two answers to the control.
    async fn confirm(
        &self,
        delivery: &mut Delivery,
        parts: &mut Parts,
        control: &Control,
        permit: &Permit<'_>,
    ) -> Result<(), Failed> {
        let tenant = delivery.batch.tenant().cloned();
        while let Some((part, _)) = parts.alone.pop_front() {
            parts.hold(delivery, Some(&part));
            self.ask(tenant.as_ref(), control, permit).await?;
            let failed = match self.try_part(delivery, permit).await {
                Tried::Through(_) => continue,
                Tried::Otherwise => {
                    parts.left.push(delivery.batch.clone());
                    continue;
                }
                Tried::Failed(failed) if !failed.server_error => return Err(failed),
                Tried::Failed(failed) => failed,
            };
            self.ask(tenant.as_ref(), control, permit).await?;
            let outcome = self.give_up(delivery, Reason::Isolated, failed.as_refusal());
            delivery.note(outcome);
        }
        Ok(())
    }

    /// Sends the next part.
    async fn try_part(&self, delivery: &mut Delivery, permit: &Permit<'_>) -> Tried {
        let version = self.versions.choose(delivery.batch.version());
        let Ok(body) = self.encode(delivery, version) else {
            return Tried::Otherwise;
        };
        let bytes = body.len();
        let request = attempt(delivery, version, body);
        let control = Control::of(&request);
        match self.send(request, permit).await {
            Ok(Answer::Stored) => delivery.count_sent(delivery.batch.counts(), bytes),
            Ok(Answer::Partly(reason, written)) => {
                let outcome = self.store_partly(delivery, reason, written, bytes);
                delivery.note(outcome);
            }
            Ok(Answer::LacksExemplars(written)) => {
                let outcome = self.store_without_exemplars(delivery, written, bytes);
                delivery.note(outcome);
            }
            Ok(_) => return Tried::Otherwise,
            Err(failed) => return Tried::Failed(failed),
        }
        Tried::Through(control)
    }

    /// Sends the control, which the endpoint has accepted before. Any answer shows that the endpoint
    /// works, whatever it says of the content.
    async fn ask(
        &self,
        tenant: Option<&Tenant>,
        control: &Control,
        permit: &Permit<'_>,
    ) -> Result<(), Failed> {
        let request = Attempt {
            version: control.version,
            tenant,
            counts: control.counts,
            body: control.body.clone(),
            failures: 0,
        };
        self.send(request, permit).await.map(drop)
    }
}
