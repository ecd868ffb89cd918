//! Jobs of a channel: what is asked call by call, and how a worker that runs by itself keeps to its room, extends leases, repeats
//! deliveries and stops.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use croupier_client::*;
use croupier_protocol::{
    DeliverJob, DeliverJobReply, EndJob, EndJobReply, JOBS_WAIT_MS_MAX, JobRow, Kind, RejectedLine,
    TakeJobs, TakeJobsReply, decode_control,
};
use tokio::sync::Semaphore;

use crate::peer::{Conn, Peer};

const WAIT: Duration = Duration::from_secs(30);

fn row(id: u128) -> JobRow {
    JobRow {
        job: OrderId::from_u128(id).to_bytes(),
        attempt: 3,
        sku: "gift".into(),
        quantity: 2,
        ends_unix_ms: 1_800_000_000_000,
    }
}

fn job(id: u128) -> Job {
    Job {
        id: OrderId::from_u128(id),
        attempt: 3,
        sku: "gift".into(),
        quantity: 2,
        ends_unix_ms: 1_800_000_000_000,
        lease: Duration::from_millis(5000),
    }
}

fn taken(lease_ms: u32, ids: &[u128]) -> TakeJobsReply {
    TakeJobsReply {
        lease_ms,
        jobs: ids.iter().map(|&id| row(id)).collect(),
    }
}

fn delivered(accepted: u64, job: JobState, missing: u16) -> DeliverJobReply {
    DeliverJobReply {
        lsn: 9,
        accepted,
        rejections: Vec::new(),
        job: job.as_u16(),
        missing,
    }
}

fn stands(job: JobState, lease_ms: u32) -> EndJobReply {
    EndJobReply {
        job: job.as_u16(),
        lease_ms,
    }
}

/// The id of a delivery's job, its flags and its secrets.
fn read_delivery(body: &Bytes, count: u16) -> (u128, u16, Vec<String>) {
    let (head, rows) = DeliverJob::decode(body, count).unwrap();
    assert_eq!((head.sku, head.channel, head.attempt), ("gift", "alpha", 3));
    let secrets = rows.map(|row| String::from_utf8(row.unwrap().secret.to_vec()).unwrap());
    let id = OrderId::from_bytes(head.job).as_u128();
    (id, head.flags, secrets.collect())
}

async fn expect_take(conn: &mut Conn) -> (croupier_protocol::FrameHeader, u32) {
    let (header, body) = conn.expect(Kind::TakeJobs).await;
    let take: TakeJobs = decode_control(&body).unwrap();
    assert_eq!((&take.channel[..], &take.worker[..]), ("alpha", "a-1"));
    (header, take.jobs_max)
}

#[tokio::test]
async fn each_call_says_what_the_page_says() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let script = async {
        let (header, body) = conn.expect(Kind::TakeJobs).await;
        let take = TakeJobs {
            channel: "alpha".into(),
            worker: "a-1".into(),
            jobs_max: 7,
            wait_ms: JOBS_WAIT_MS_MAX,
        };
        assert_eq!(decode_control(&body), Ok(take));
        conn.control(header, 0, &taken(5000, &[1, 2])).await;
        let (header, body) = conn.expect(Kind::DeliverJob).await;
        let secrets = vec!["one".to_owned(), "two".to_owned()];
        assert_eq!(read_delivery(&body, header.count), (1, 1, secrets));
        let reply = DeliverJobReply {
            rejections: vec![RejectedLine { line: 2, reason: 7 }],
            ..delivered(1, JobState::Over, 1)
        };
        conn.control(header, 0, &reply).await;
        let ends = [(1, 2500, ""), (2, 0, "sold out"), (3, 0, "not ours")];
        for (what, extend_ms, reason) in ends {
            let (header, body) = conn.expect(Kind::EndJob).await;
            let end = EndJob {
                channel: "alpha".into(),
                job: row(1).job,
                attempt: 3,
                what,
                extend_ms,
                reason: reason.into(),
            };
            assert_eq!(decode_control(&body), Ok(end));
            conn.control(header, 0, &stands(JobState::UnderWay, 2500))
                .await;
        }
        let (header, _) = conn.expect(Kind::EndJob).await;
        let odd = EndJobReply {
            job: 9,
            lease_ms: 0,
        };
        conn.control(header, 0, &odd).await;
    };
    let calls = async {
        let hour = Duration::from_secs(3600);
        let jobs = client.take_jobs("alpha", "a-1", 7, hour).await.unwrap();
        assert_eq!(jobs, [job(1), job(2)]);
        let rows = [ImportRow::new(1, b"one"), ImportRow::new(2, b"two")];
        let delivery = client.deliver_job("alpha", &jobs[0], &rows, true).await;
        let expect = JobDelivery {
            lsn: Lsn(9),
            accepted: 1,
            rejections: vec![Rejection {
                line: 2,
                reason: RejectReason::DuplicateInStock,
            }],
            state: JobState::Over,
            missing: 1,
        };
        assert_eq!(delivery.unwrap(), expect);
        let lease = Duration::from_millis(2500);
        let extended = client.extend_job("alpha", &jobs[0], lease).await.unwrap();
        let state = JobState::UnderWay;
        assert_eq!(extended, JobLease { state, lease });
        for failure in [
            JobFailure::for_now("sold out"),
            JobFailure::for_good("not ours"),
        ] {
            let failed = client.fail_job("alpha", &jobs[0], &failure).await;
            assert_eq!(failed.unwrap().state, state);
        }
        let unknown = client.extend_job("alpha", &jobs[0], lease).await;
        assert!(matches!(
            unknown,
            Err(Error::Protocol(ProtocolError::UnknownNumber(_)))
        ));
        // As many rows as the server refuses are not sent.
        let many = vec![ImportRow::new(1, b"x"); 1025];
        let refused = client.deliver_job("alpha", &jobs[0], &many, true).await;
        let refused = refused.unwrap_err().refusal();
        assert_eq!(refused, Some(Refusal::DeliveryInvalid));
    };
    tokio::join!(calls, script);
}

fn cards(job: &Job) -> Vec<JobCard> {
    let card = |nth| format!("{}-{nth}", job.id.as_u128()).into();
    (0..job.quantity).map(card).collect()
}

#[tokio::test]
async fn a_worker_never_has_more_jobs_than_it_may_and_offers_room_as_soon_as_there_is_some() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let goes_on = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&goes_on);
    let issuer = Issuer::builder(client, "alpha")
        .worker("a-1")
        .jobs_max(8)
        .wait(WAIT)
        .start(move |job| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(cards(&job))
            }
        });
    let mut offers = Vec::new();
    for _ in 0..4 {
        offers.push(expect_take(&mut conn).await);
    }
    assert_eq!(offers.iter().map(|(_, room)| room).sum::<u32>(), 8);
    let mut id = 0;
    for (header, room) in offers {
        let ids: Vec<u128> = (0..room).map(|nth| id + u128::from(nth)).collect();
        id += u128::from(room);
        conn.control(header, 0, &taken(60_000, &ids)).await;
    }
    assert!(conn.hears_nothing().await, "all its room is taken");
    goes_on.add_permits(1);
    let (header, body) = conn.expect(Kind::DeliverJob).await;
    let (id, flags, secrets) = read_delivery(&body, header.count);
    assert_eq!(flags, 1);
    assert_eq!(secrets, [format!("{id}-0"), format!("{id}-1")]);
    assert!(conn.hears_nothing().await, "not acknowledged is under way");
    conn.control(header, 0, &delivered(2, JobState::Done, 0))
        .await;
    let (offer, room) = expect_take(&mut conn).await;
    assert_eq!(room, 1);

    // Stopped, it does what is under way and what an open offer brings, and asks for nothing more.
    let stopped = tokio::spawn(issuer.stop(WAIT));
    conn.control(offer, 0, &taken(60_000, &[77])).await;
    goes_on.add_permits(8);
    for _ in 0..8 {
        let (header, _) = conn.expect(Kind::DeliverJob).await;
        conn.control(header, 0, &delivered(2, JobState::Over, 0))
            .await;
    }
    let report = stopped.await.unwrap();
    let expect = IssuerCounts {
        jobs: 9,
        cards: 18,
        late: 8,
        ..IssuerCounts::default()
    };
    assert_eq!(report.counts, expect);
    assert!(report.undelivered.is_empty() && report.error.is_none());
}

#[tokio::test]
async fn a_delivery_whose_answer_is_lost_is_sent_again_over_another_connection() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder().retries(0)).await;
    let issuer = Issuer::builder(client, "alpha")
        .worker("a-1")
        .jobs_max(1)
        .wait(WAIT)
        .start(async |job| Ok(cards(&job)));
    let (offer, _) = expect_take(&mut conn).await;
    conn.control(offer, 0, &taken(60_000, &[5])).await;
    let mut told = Vec::new();
    for _ in 0..3 {
        let (header, body) = conn.expect(Kind::DeliverJob).await;
        told.push(read_delivery(&body, header.count));
        drop(conn);
        conn = peer.accept().await;
    }
    let (header, body) = conn.expect(Kind::DeliverJob).await;
    told.push(read_delivery(&body, header.count));
    told.dedup();
    assert_eq!(told.len(), 1, "the same each time: {told:?}");
    let rejections = [1, 2].map(|line| RejectedLine { line, reason: 7 });
    let reply = DeliverJobReply {
        rejections: rejections.into(),
        ..delivered(0, JobState::Unknown, 0)
    };
    conn.control(header, 0, &reply).await;
    expect_take(&mut conn).await;
    let counts = issuer.counts();
    assert_eq!((counts.rejected, counts.late, counts.cards), (2, 1, 0));
}

#[tokio::test]
async fn jobs_fail_with_a_reason_and_a_panic_is_the_end_of_one_job() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let _issuer = Issuer::builder(client, "alpha")
        .worker("a-1")
        .jobs_max(1)
        .wait(WAIT)
        .start(async |job: Job| match job.id.as_u128() {
            1 => Err(JobFailure::for_now("no answer")),
            2 => Err(JobFailure::for_good("not ours")),
            _ => panic!("a supplier's library"),
        });
    let expect = [
        (1, 2, "no answer"),
        (2, 3, "not ours"),
        (3, 2, "the worker broke down"),
    ];
    for (id, what, reason) in expect {
        let (offer, _) = expect_take(&mut conn).await;
        conn.control(offer, 0, &taken(60_000, &[id])).await;
        let (header, body) = conn.expect(Kind::EndJob).await;
        let end: EndJob = decode_control(&body).unwrap();
        assert_eq!((end.what, &end.reason[..]), (what, reason));
        conn.control(header, 0, &stands(JobState::Over, 0)).await;
    }
}

#[tokio::test]
async fn a_lease_is_extended_while_cards_are_made_until_the_job_is_over() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let goes_on = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&goes_on);
    let issuer = Issuer::builder(client, "alpha")
        .worker("a-1")
        .jobs_max(1)
        .wait(WAIT)
        .start(move |job| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(cards(&job))
            }
        });
    let (offer, _) = expect_take(&mut conn).await;
    conn.control(offer, 0, &taken(40, &[1])).await;
    for (state, lease_ms) in [
        (JobState::UnderWay, 40),
        (JobState::UnderWay, 40),
        (JobState::Over, 0),
    ] {
        let (header, body) = conn.expect(Kind::EndJob).await;
        let end: EndJob = decode_control(&body).unwrap();
        assert_eq!((end.what, end.extend_ms), (1, 40));
        conn.control(header, 0, &stands(state, lease_ms)).await;
    }
    assert!(conn.hears_nothing().await, "it is over");
    // What was made is delivered all the same.
    goes_on.add_permits(1);
    let (header, _) = conn.expect(Kind::DeliverJob).await;
    conn.control(header, 0, &delivered(2, JobState::Over, 0))
        .await;
    expect_take(&mut conn).await;
    let counts = issuer.counts();
    assert_eq!((counts.extended, counts.late, counts.cards), (2, 1, 2));
}

#[tokio::test]
async fn a_worker_that_is_set_up_wrongly_ends_and_one_whose_table_changes_tries_on() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let builder = Issuer::builder(client, "alpha").worker("a-1").jobs_max(1);
    let builder = builder.wait(WAIT);
    let issuer = builder.clone().start(async |job| Ok(cards(&job)));
    let (offer, _) = expect_take(&mut conn).await;
    conn.refuse_whole(offer, Refusal::ChannelUnknown, 0, "no alpha here")
        .await;
    issuer.ended().await;
    let report = issuer.stop(WAIT).await;
    let error = report.error.unwrap();
    assert_eq!(error.refusal(), Some(Refusal::ChannelUnknown));
    assert!(error.to_string().contains("no alpha here"));

    let issuer = builder.start(async |job| Ok(cards(&job)));
    let (offer, _) = expect_take(&mut conn).await;
    conn.control(offer, 0, &taken(5000, &[])).await;
    for _ in 0..3 {
        let (offer, _) = expect_take(&mut conn).await;
        conn.refuse_whole(offer, Refusal::ChannelUnknown, 0, "gone")
            .await;
    }
    let (offer, _) = expect_take(&mut conn).await;
    conn.control(offer, 0, &taken(60_000, &[1])).await;
    // So are cards, for which there is no channel just now.
    for _ in 0..2 {
        let (header, _) = conn.expect(Kind::DeliverJob).await;
        conn.refuse_whole(header, Refusal::ChannelUnknown, 0, "gone")
            .await;
    }
    let (header, _) = conn.expect(Kind::DeliverJob).await;
    // What does not pass ends it, and the cards come back.
    conn.refuse_whole(header, Refusal::JobOther, 0, "another SKU")
        .await;
    issuer.ended().await;
    let report = issuer.stop(WAIT).await;
    let [undelivered] = &report.undelivered[..] else {
        panic!("{report:?}")
    };
    assert_eq!(undelivered.cards, cards(&job(1)));
    assert_eq!(undelivered.error.refusal(), Some(Refusal::JobOther));
    assert!(matches!(report.error, Some(Error::Undelivered { jobs: 1 })));
}

#[tokio::test]
async fn stopping_ends_in_time_whatever_the_server_does() {
    let peer = Peer::bind().await;
    let (client, mut conn) = peer.connected(peer.builder()).await;
    let issuer = Issuer::builder(client, "alpha").worker("a-1").jobs_max(2);
    let issuer = issuer.wait(WAIT).start(async |job: Job| {
        if job.id.as_u128() == 1 {
            std::future::pending::<()>().await;
        }
        Ok(cards(&job))
    });
    for id in [1, 2] {
        let (offer, _) = expect_take(&mut conn).await;
        conn.control(offer, 0, &taken(60_000, &[id])).await;
    }
    // One is being made for ever, the other's delivery is not answered.
    conn.expect(Kind::DeliverJob).await;
    let report = issuer.stop(Duration::from_millis(50)).await;
    assert_eq!(report.counts.jobs, 2);
    let [undelivered] = &report.undelivered[..] else {
        panic!("{report:?}")
    };
    assert_eq!(
        undelivered.job,
        Job {
            lease: WAIT * 2,
            ..job(2)
        }
    );
    assert_eq!(undelivered.cards.len(), 2);
}
