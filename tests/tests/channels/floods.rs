//! Workers that send far more than they should: everybody else is served as before, and what is open stays bounded.

use std::time::Duration;

use bytes::BytesMut;
use croupier_client::{ImportRow, JobState, OrderId, Refusal};
use croupier_protocol::{
    DeliverJob, DeliverJobReply, JOB_FLAG_ALL, Kind, RefusedBody, TakeJobs, TakeJobsReply,
    decode_control, encode_control,
};
use croupier_tests::{Wire, frame, scaled};

use super::market::{Market, SKU};

fn take(request_id: u64, wait_ms: u32) -> Vec<u8> {
    let take = TakeJobs {
        channel: "alpha".into(),
        worker: "flood".into(),
        jobs_max: 4096,
        wait_ms,
    };
    frame(Kind::TakeJobs, request_id, 0, |out| {
        encode_control(&take, out)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_offers_are_refused_but_for_sixteen() {
    let market = Market::open(2_080).await;
    let mut wire = Wire::greeted(market.server.addr()).0;
    let offers = 5_000;
    let all: Vec<u8> = (1..=offers).flat_map(|id| take(id, 60_000)).collect();
    let mut writer = wire.split();
    let writes = std::thread::spawn(move || {
        use std::io::Write as _;
        let _ = writer.write_all(&all);
    });
    for _ in 16..offers {
        let (header, body) = wire.reply();
        assert_eq!(header.kind, Kind::Refused);
        let refused = RefusedBody::decode(&body).expect("a Refused");
        assert_eq!(refused.refusal, Refusal::Busy, "{refused:?}");
    }
    writes.join().expect("no panic");
    assert!(wire.answers());
    // The sixteen are good offers.
    let id = market.want(1).await;
    let (header, body) = wire.reply();
    assert_eq!(header.kind, Kind::TakeJobsReply);
    let taken: TakeJobsReply = decode_control(&body).expect("jobs");
    assert_eq!(taken.jobs[0].job, id.to_bytes());
    drop(wire);
    // Who floods and goes leaves nothing behind that others would wait for.
    let alpha = market.hand("alpha").await;
    let job = alpha.job().await;
    assert_eq!(job.id, id);
    alpha.deliver(&job, &market.secrets(1), true).await;
    market.filled(id).await;
    market.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offers_that_do_not_wait_are_answered_as_fast_as_they_come() {
    let market = Market::open(2_081).await;
    let mut wire = Wire::greeted(market.server.addr()).0;
    for round in 0..scaled(20, 200) {
        let ids = 1 + round * 10..1 + (round + 1) * 10;
        let offers: Vec<u8> = ids.clone().flat_map(|id| take(id, 0)).collect();
        wire.send(&offers);
        for _ in ids {
            let (header, _) = wire.reply();
            assert_eq!(header.kind, Kind::TakeJobsReply);
        }
    }
    market.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_for_thousands_of_jobs_that_nobody_knows_are_stock_once() {
    let market = Market::open(2_082).await;
    let deliveries = scaled(2_000, 20_000);
    let cards = market.secrets(100);
    market.oracle.delivers(SKU, market.sku, &cards);
    let mut wire = Wire::greeted(market.server.addr()).0;
    let mut all = BytesMut::new();
    for nth in 0..deliveries {
        let head = DeliverJob {
            job: OrderId::new_v7().to_bytes(),
            attempt: nth as u32,
            flags: JOB_FLAG_ALL,
            sku: SKU,
            channel: "alpha",
        };
        let card = &cards[nth as usize % cards.len()];
        all.extend_from_slice(&frame(Kind::DeliverJob, nth + 1, 1, |out| {
            head.encode_into(&[ImportRow::new(1, card)], out);
        }));
    }
    let mut writer = wire.split();
    let writes = std::thread::spawn(move || {
        use std::io::Write as _;
        let _ = writer.write_all(&all);
    });
    let mut accepted = 0;
    for _ in 0..deliveries {
        let (header, body) = wire.reply();
        assert_eq!(header.kind, Kind::DeliverJobReply, "{header:?}");
        let reply: DeliverJobReply = decode_control(&body).expect("a reply");
        assert_eq!(reply.job, JobState::Unknown.as_u16());
        accepted += reply.accepted;
    }
    writes.join().expect("no panic");
    assert_eq!(accepted, cards.len() as u64);
    let known = cards.iter().map(Vec::as_slice);
    market.oracle.delivered(SKU, known);
    assert_eq!(market.free().await, accepted);
    market.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_jobs_of_an_answer_fit_one_frame() {
    let market = Market::open(2_084).await;
    let orders = 1_500;
    for _ in 0..orders {
        market.want(1).await;
    }
    let (mut wire, hello) = Wire::greeted(market.server.addr());
    let mut taken = Vec::new();
    while taken.len() < orders {
        wire.send(&take(7, 60_000));
        let (header, body) = wire.reply();
        assert_eq!(header.kind, Kind::TakeJobsReply);
        assert!(header.length <= hello.frame_bytes_max && !header.more());
        let reply: TakeJobsReply = decode_control(&body).expect("jobs");
        taken.extend(reply.jobs.into_iter().map(|job| job.job));
    }
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), orders, "no job twice");
    market.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_takes_thousands_of_jobs_and_reads_nothing_stops_nobody() {
    let market = Market::open(2_083).await;
    let mut greedy = Wire::greeted(market.server.addr()).0;
    let offers: Vec<u8> = (1..=16).flat_map(|id| take(id, 60_000)).collect();
    greedy.send(&offers);
    assert!(greedy.answers());
    for _ in 0..scaled(200, 4_000) {
        market.want(1).await;
    }
    drop(greedy);
    let alpha = market.hand("alpha").await;
    loop {
        let taken = alpha
            .client
            .take_jobs("alpha", "a", 4096, Duration::from_millis(500));
        let jobs = taken.await.expect("an offer is answered");
        for job in &jobs {
            alpha.deliver(job, &market.secrets(1), true).await;
        }
        market.oracle.look_up_all(&market.client).await;
        let (waited, filled) = market.oracle.waited();
        if waited == filled {
            break;
        }
    }
    market.close().await;
}
