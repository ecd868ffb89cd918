//! What the server refuses of workers: each with a reason, and nothing is changed by it.

use std::time::Duration;

use croupier_client::{ImportRow, Job, JobFailure, JobState, OrderId, Refusal};
use croupier_protocol::{DeliverJob, EndJob, FaultCode, Kind, TakeJobs, encode_control};
use croupier_tests::{Wire, frame};

use super::market::{LONG, Market, SKU, table};
use crate::moves::refusal_of;

const MINUTE: Duration = Duration::from_secs(60);

fn made_up() -> Job {
    Job {
        id: OrderId::new_v7(),
        attempt: 1,
        sku: SKU.into(),
        quantity: 1,
        ends_unix_ms: 0,
        lease: LONG,
    }
}

#[tokio::test]
async fn only_issuers_of_the_table_have_workers() {
    let with_stock = format!(
        "{}\n[[channel]]\nname = \"shelf\"\nkind = \"stock\"\n",
        table("1h")
    );
    let market = Market::open(2_060).await;
    market
        .client
        .routes_load(&with_stock)
        .await
        .expect("a table");
    let client = &market.client;
    let job = made_up();
    let rows = [ImportRow::new(1, b"a code that nobody has")];
    let failure = JobFailure::for_now("sold out");
    let long = "x".repeat(200);
    for channel in ["shelf", "nobody", "", "gift", &long] {
        let refused = client.take_jobs(channel, "w", 1, MINUTE).await;
        assert_eq!(refusal_of(refused), Refusal::ChannelUnknown, "{channel}");
        let refused = client.deliver_job(channel, &job, &rows, true).await;
        assert_eq!(refusal_of(refused), Refusal::ChannelUnknown, "{channel}");
    }
    for channel in ["shelf", "nobody"] {
        let told = client.extend_job(channel, &job, MINUTE).await;
        assert_eq!(told.expect("it is told").state, JobState::Unknown);
        let told = client.fail_job(channel, &job, &failure).await;
        assert_eq!(told.expect("it is told").state, JobState::Unknown);
    }
    assert_eq!(market.free().await, 0);
    // A table without it, later: there are no more jobs, and what was taken is still delivered.
    let alpha = market.hand("alpha").await;
    let id = market.want(1).await;
    let job = alpha.job().await;
    client.routes_load("[[rule]]\n").await.expect("a table");
    let refused = alpha.client.take_jobs("alpha", "hand", 1, MINUTE).await;
    assert_eq!(refusal_of(refused), Refusal::ChannelUnknown);
    alpha.deliver(&job, &market.secrets(1), true).await;
    market.filled(id).await;
    client.routes_load(&table("1h")).await.expect("a table");
    let id = market.want(1).await;
    let job = alpha.job().await;
    alpha.deliver(&job, &market.secrets(1), true).await;
    market.filled(id).await;
    market.close().await;
}

#[tokio::test]
async fn numbers_and_names_out_of_range_are_refused() {
    let market = Market::open(2_061).await;
    let alpha = market.hand("alpha").await;
    let client = &alpha.client;
    for jobs_max in [0, 4097, u32::MAX] {
        let refused = client.take_jobs("alpha", "w", jobs_max, MINUTE).await;
        assert_eq!(refusal_of(refused), Refusal::JobInvalid, "{jobs_max}");
    }
    let id = market.want(1).await;
    let job = alpha.job().await;
    let mut wire = Wire::greeted(market.server.addr()).0;
    let end = |what, extend_ms, reason: usize| EndJob {
        channel: "alpha".into(),
        job: job.id.to_bytes(),
        attempt: job.attempt,
        what,
        extend_ms,
        reason: "r".repeat(reason),
    };
    // Extended by nothing, no such deed, and too much of a reason.
    for end in [end(1, 0, 0), end(0, 5, 0), end(4, 5, 0), end(2, 0, 257)] {
        wire.send(&frame(Kind::EndJob, 5, 0, |out| encode_control(&end, out)));
        assert_eq!(wire.refused(5).refusal, Refusal::JobInvalid, "{end:?}");
    }
    let take = TakeJobs {
        channel: "alpha".into(),
        worker: "w".repeat(65),
        jobs_max: 1,
        wait_ms: 0,
    };
    wire.send(&frame(Kind::TakeJobs, 6, 0, |out| {
        encode_control(&take, out)
    }));
    let refused = wire.refused(6).refusal;
    assert!(
        matches!(refused, Refusal::JobInvalid | Refusal::NameInvalid),
        "{refused:?}"
    );
    let deliver = |rows: usize| {
        let head = DeliverJob {
            job: job.id.to_bytes(),
            attempt: job.attempt,
            flags: 0,
            sku: SKU,
            channel: "alpha",
        };
        let rows = vec![ImportRow::new(1, b"x"); rows];
        frame(Kind::DeliverJob, 7, rows.len() as u16, |out| {
            head.encode_into(&rows, out);
        })
    };
    wire.send(&deliver(1025));
    assert_eq!(wire.refused(7).refusal, Refusal::DeliveryInvalid);
    assert!(wire.answers());
    assert_eq!(market.free().await, 0);
    // None of it has ended the job.
    alpha.deliver(&job, &market.secrets(1), true).await;
    market.filled(id).await;
    market.close().await;
}

#[tokio::test]
async fn broken_bodies_and_frames_are_told_from_each_other() {
    let market = Market::open(2_062).await;
    let addr = market.server.addr();
    let mut wire = Wire::greeted(addr).0;
    for kind in [Kind::TakeJobs, Kind::EndJob] {
        for body in [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff", &[0; 3]] {
            wire.send(&frame(kind, 3, 0, |out| out.extend_from_slice(body)));
            assert_eq!(wire.refused(3).refusal, Refusal::Malformed, "{kind:?}");
        }
    }
    // Something behind the last field.
    let take = TakeJobs {
        channel: "alpha".into(),
        worker: "w".into(),
        jobs_max: 1,
        wait_ms: 0,
    };
    wire.send(&frame(Kind::TakeJobs, 4, 0, |out| {
        encode_control(&take, out);
        out.extend_from_slice(b"?");
    }));
    assert_eq!(wire.refused(4).refusal, Refusal::Malformed);
    assert!(wire.answers());
    // The rows of a delivery and their count disagree; a head that is cut short.
    for (count, body) in [(3, &[0; 32][..]), (0, &[0; 31][..]), (1, &[])] {
        let mut wire = Wire::greeted(addr).0;
        let bytes = frame(Kind::DeliverJob, 5, count, |out| {
            out.extend_from_slice(body);
        });
        wire.send(&bytes);
        let (header, _) = wire.reply();
        assert!(
            matches!(header.kind, Kind::Fault | Kind::Refused),
            "{header:?}"
        );
    }
    // A delivery that is longer than any frame.
    let mut wire = Wire::greeted(addr).0;
    let mut huge = frame(Kind::DeliverJob, 6, 1, |out| {
        out.extend_from_slice(&[0; 32])
    });
    huge[..4].copy_from_slice(&(17_u32 << 20).to_le_bytes());
    wire.send(&huge);
    assert_eq!(wire.fault().0.fault, FaultCode::FrameTooLong);
    assert_eq!(market.free().await, 0);
    market.close().await;
}

#[tokio::test]
async fn a_channel_has_64_workers_and_a_place_that_is_left_is_free_again() {
    let market = Market::open(2_063).await;
    let take = TakeJobs {
        channel: "alpha".into(),
        worker: "one of many".into(),
        jobs_max: 1,
        wait_ms: 60_000,
    };
    let offer = |wire: &mut Wire| {
        wire.send(&frame(Kind::TakeJobs, 8, 0, |out| {
            encode_control(&take, out)
        }));
    };
    let mut wires: Vec<Wire> = Vec::new();
    for _ in 0..64 {
        let mut wire = Wire::greeted(market.server.addr()).0;
        offer(&mut wire);
        wires.push(wire);
    }
    let hand = market.hand("alpha").await;
    super::market::until("64 workers", async || {
        let channels = hand.client.channels().await.expect("an answer");
        let alpha = channels.iter().find(|channel| channel.name == "alpha");
        alpha.is_some_and(|alpha| alpha.workers == 64)
    })
    .await;
    let mut one_more = Wire::greeted(market.server.addr()).0;
    offer(&mut one_more);
    assert_eq!(one_more.refused(8).refusal, Refusal::TooManyWorkers);
    // Another channel has room, and so has this one when somebody goes.
    let beta = market.hand("beta").await;
    let none = beta.client.take_jobs("beta", "b", 1, Duration::ZERO).await;
    assert_eq!(none.expect("room").len(), 0);
    wires.pop();
    super::market::until("a place is free", async || {
        let hand = market.hand("alpha").await;
        let taken = hand.client.take_jobs("alpha", "a", 1, Duration::ZERO).await;
        taken.is_ok()
    })
    .await;
    market.close().await;
}
