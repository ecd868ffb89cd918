//! Bytes to begin with: at least one input of every form that a target reads.

use bytes::BytesMut;
use croupier_protocol::*;

/// The seeds of a target, each with a name.
pub fn of(target: &str) -> Vec<(String, Vec<u8>)> {
    match target {
        "frame" => frames(),
        "wal" => log(),
        "checkpoint" => {
            let whole = crate::checkpoint::sample_bytes();
            let body = [&[0; 6], &whole[192..]].concat();
            named([("whole", whole), ("body", body)])
        }
        "orders" => {
            let whole = crate::orders::sample_bytes();
            let rows = [&[2], &whole[80..]].concat();
            named([("chunk", whole[64..].to_vec()), ("rows", rows), ("whole", whole)])
        }
        "slab" => {
            let entry = [1, 8, 16, 255, 40, 16, 1, 0, 32, 1];
            named([("header", crate::slab::sample_header()), ("entry", entry.to_vec()), ("as-it-is", vec![0])])
        }
        "import" => imports(),
        "routes" => named([
            ("default", croupier_engine::route::DEFAULT_ROUTES.into()),
            (
                "full",
                "[[rule]]\nname = \"大客户\"\npriority = [\"vip\", \"standard\"]\nsku = \"steam-*\"\nlane = \"vip\"\n\
                 pools = [\"vip\", \"main\"]\n\n[[rule]]\nsku = \"*\"\n"
                    .into(),
            ),
            (
                "outside",
                "[retry]\nattempts = 3\n[outlier]\nmax_ejection_percent = 30\n[[channel]]\nname = \"a\"\nkind = \"issuer\"\n\
                 timeout = \"2s\"\njobs = 7\noutlier = { probes = 1, window = \"5s\" }\noverflow = { when = \"load > 0.5\", to = \"b\" }\n\
                 [[channel]]\nname = \"b\"\nkind = \"upstream\"\npool = \"main\"\nskus = [\"steam-*\", \"a\"]\n\
                 url = \"croupier://[::1]:7733\"\nsku_prefix = \"n/\"\n[[rule]]\nchannels = [{ a = 3, b = 1 }]\nbalance = \"least-latency\"\n"
                    .into(),
            ),
            ("wrong", "[[rule]]\npriority = [\"urgent\"]\n".into()),
        ]),
        other => panic!("no target is called {other}"),
    }
}

fn named<const N: usize>(seeds: [(&str, Vec<u8>); N]) -> Vec<(String, Vec<u8>)> {
    seeds
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .collect()
}

fn imports() -> Vec<(String, Vec<u8>)> {
    let with = |choice: u8, text: &str| [&[choice, 7], text.as_bytes()].concat();
    named([
        (
            "lines",
            with(1, "\u{feff}AAAA-1\r\n\r\n一二三\nlast without end"),
        ),
        ("bars", with(2, "S1║标签║1.5║0.25\nS2║║║\nS3║two║bars\n")),
        (
            "csv",
            with(
                3,
                "secret,label,expires,premium,cost\nA,x,2030-01-01,1,2\n\"B \"\"q\"\"\nC\",,,,\n",
            ),
        ),
        (
            "csv-columns",
            with(0x23, "card,secret,pin\n1,AAAA,0001\n2,BBBB,\n3,CCCC\n"),
        ),
        ("guessed", with(0, "no bars here\n")),
    ])
}

fn log() -> Vec<(String, Vec<u8>)> {
    let block = |records: Vec<u8>| [&[2, 0, 0, 0, 0, 0, 0], &records[..]].concat();
    let mut seeds = named([
        ("nothing-behind", vec![0]),
        ("torn-tail", [&[0; 600], &[0x55; 700][..]].concat()),
        ("one-flip", vec![1, 80, 16, 4]),
        ("two-flips", vec![1, 80, 16, 4, 80, 48, 4]),
        ("order", block(crate::orders::issued(1))),
        ("order-of-many-runs", block(crate::orders::issued(30))),
        ("last-with-records", vec![2, 1, 1, 0, 0, 0, 0]),
        ("wrong-lsn", vec![2, 5, 1, 0, 0, 0, 0]),
    ]);
    for (number, record) in crate::wal::cold_records().into_iter().enumerate() {
        seeds.push((format!("cold-{number}"), block(record)));
    }
    seeds
}

fn frames() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (index, kind) in Kind::ALL.into_iter().enumerate() {
        let (count, body) = body(kind);
        seeds.push((
            format!("body-{kind:?}"),
            [&[index as u8], &count.to_le_bytes()[..], &body].concat(),
        ));
        let mut wire = BytesMut::new();
        let mut frame = FrameWriter::begin(&mut wire, kind, 7);
        frame.set_count(count);
        frame.body().extend_from_slice(&body);
        frame.finish();
        seeds.push((format!("frame-{kind:?}"), wire.to_vec()));
    }
    seeds
}

/// A body of that kind and its count.
fn body(kind: Kind) -> (u16, Vec<u8>) {
    let mut out = BytesMut::new();
    let count = put_body(kind, &mut out);
    (count, out.to_vec())
}

fn put_body(kind: Kind, out: &mut BytesMut) -> u16 {
    let id = OrderId::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001);
    match kind {
        Kind::Hello => Hello::default().encode_into(out),
        Kind::HelloReply => {
            let reply = HelloReply {
                version: PROTOCOL_VERSION,
                frame_bytes_max: FRAME_BYTES_MAX_DEFAULT,
                features: 0,
                store_id: [7; 16],
                orders_per_frame_max: ORDERS_PER_FRAME_MAX_DEFAULT,
                orders_in_flight_max: ORDERS_IN_FLIGHT_MAX_DEFAULT,
                quantity_max: QUANTITY_MAX_DEFAULT,
            };
            reply.encode_into(out);
        }
        Kind::Refused => {
            RefusedBody {
                refusal: Refusal::Busy,
                retry_after_ms: 20,
                text: "满了".into(),
            }
            .encode_into(out);
        }
        Kind::Fault => FaultBody {
            fault: FaultCode::Malformed,
            text: "why".into(),
        }
        .encode_into(out),
        Kind::Ping | Kind::PingReply => out.extend_from_slice(b"ping"),
        Kind::ServerInfo
        | Kind::SkuList
        | Kind::RoutesHistory
        | Kind::RoutesStatus
        | Kind::ChannelsStatus => {}
        Kind::CanaryStatus | Kind::CanaryAbort | Kind::CanaryResume => {}
        Kind::Deliver => Deliver {
            sku: "卡密",
            pool: "vip",
        }
        .encode_into(&[ImportRow::new(1, b"AAAA")], out),
        Kind::DeliverReply => {
            let reply = DeliverReply {
                lsn: 43,
                accepted: 1,
                rejections: vec![RejectedLine { line: 2, reason: 7 }],
            };
            encode_control(&reply, out);
        }
        Kind::TakeJobs => {
            let take = TakeJobs {
                channel: "北方".into(),
                worker: "w".into(),
                jobs_max: 16,
                wait_ms: 1000,
            };
            encode_control(&take, out);
        }
        Kind::TakeJobsReply => {
            let job = JobRow {
                job: [9; 16],
                attempt: 1,
                sku: "卡密".into(),
                quantity: 2,
                ends_unix_ms: 7,
            };
            let reply = TakeJobsReply {
                lease_ms: 5000,
                jobs: vec![job],
            };
            encode_control(&reply, out);
        }
        Kind::DeliverJob => DeliverJob {
            job: [9; 16],
            attempt: 1,
            flags: JOB_FLAG_ALL,
            sku: "卡密",
            channel: "北方",
        }
        .encode_into(&[ImportRow::new(1, b"AAAA")], out),
        Kind::DeliverJobReply => {
            let reply = DeliverJobReply {
                lsn: 43,
                accepted: 1,
                rejections: vec![RejectedLine { line: 2, reason: 7 }],
                job: 2,
                missing: 1,
            };
            encode_control(&reply, out);
        }
        Kind::EndJob => {
            let end = EndJob {
                channel: "北方".into(),
                job: [9; 16],
                attempt: 1,
                what: 2,
                extend_ms: 0,
                reason: "卖完了".into(),
            };
            encode_control(&end, out);
        }
        Kind::EndJobReply => encode_control(
            &EndJobReply {
                job: 3,
                lease_ms: 0,
            },
            out,
        ),
        Kind::RetryList => {
            let list = RetryList {
                sku: Some("卡密".into()),
                buried: Some(true),
                after: 1,
                limit: 9,
            };
            encode_control(&list, out);
        }
        Kind::RetryListReply => {
            let row = RetryRow {
                order: [9; 16],
                sku: 1,
                quantity: 1,
                priority: 1,
                attempts: 2,
                buried: false,
                cause: 3,
                again_unix_ms: 5,
                since_unix_ms: 4,
                ends_unix_ms: 6,
            };
            let reply = RetryListReply {
                rows: vec![row],
                next: None,
                waiting: 1,
                retrying: 1,
                buried: 0,
                oldest_unix_ms: 4,
            };
            encode_control(&reply, out);
        }
        Kind::RetryMove => {
            let moves = RetryMove {
                what: 1,
                orders: vec![[9; 16]],
                sku: Some("卡密".into()),
                buried: Some(false),
            };
            encode_control(&moves, out);
        }
        Kind::RetryMoveReply => encode_control(&RetryMoveReply { moved: 1, lsn: 9 }, out),
        Kind::FindSecret => FindSecret {
            sku: SkuId(1),
            secret: "一二三".as_bytes(),
        }
        .encode_into(out),
        Kind::MoveCards => {
            let moves = MoveCards {
                to: 3,
                issued: true,
                sku: Some("卡密".into()),
                batch: Some("b".into()),
                cards: vec![CardPlace::default(); 2],
                order: Some([7; 16]),
            };
            encode_control(&moves, out);
        }
        Kind::Pick => {
            let pick = Pick {
                order: [7; 16],
                sku: 1,
                quantity: 1,
                ttl_ms: Some(60_000),
                card: Some(CardPlace::default()),
                label: Some("卡密".into()),
                holder: Trailing(Some([9; 16])),
            };
            encode_control(&pick, out);
        }
        Kind::MoveCardsReply => encode_control(&MoveCardsReply { moved: 1, lsn: 9 }, out),
        Kind::Issue => {
            for quantity in [1, 3] {
                let item = StepItem {
                    quantity,
                    deadline_ms: 50,
                    ..StepItem::one(id, SkuId(1))
                };
                item.encode_into(out);
            }
            let named = StepItem::one(id, SkuId(1)).of_holder(Holder::from_u128(7));
            named.encode_into(out);
            return 3;
        }
        Kind::ListOrders => {
            let list = ListOrders {
                holder: [9; 16],
                after: 7,
                limit: 10,
            };
            encode_control(&list, out);
        }
        Kind::ListOrdersReply => {
            let list = OrderList {
                rows: vec![OrderRow::default()],
                next: Some(9),
            };
            encode_control(&list, out);
        }
        Kind::LookUp => {
            put_lookup(out, id);
            return 1;
        }
        Kind::Reserve | Kind::Commit | Kind::Cancel | Kind::Extend => {
            let item = match kind {
                Kind::Reserve => StepItem {
                    ttl_ms: 900_000,
                    ..StepItem::one(id, SkuId(1))
                },
                Kind::Commit => StepItem {
                    quantity: 2,
                    flags: STEP_FLAG_ONLY_HELD,
                    ..StepItem::of(id)
                },
                Kind::Extend => StepItem {
                    quantity: 1,
                    ttl_ms: 60_000,
                    ..StepItem::of(id)
                },
                _ => StepItem::of(id),
            };
            item.encode_into(out);
            return 1;
        }
        Kind::ReserveReply | Kind::ExtendReply => {
            let hold = Hold {
                ends_unix_ms: 1_900_000_000_000,
                extensions: 1,
            };
            put_hold(out, STATUS_HELD, &held(id, Some(hold)));
            put_refused(out, id, SkuId(1), Refusal::NoExtensionLeft, 0);
            return 2;
        }
        Kind::CancelReply => {
            put_hold(out, STATUS_CANCELLED, &held(id, None));
            put_refused(out, id, SkuId(1), Refusal::AlreadyCommitted, 0);
            return 2;
        }
        Kind::IssueReply | Kind::LookUpReply | Kind::CommitReply | Kind::PickReply => {
            put_refused(out, id, SkuId(1), Refusal::OutOfStock, 20);
            let mut order = IssuedWriter::begin(out, id, Lsn(9), SkuId(1), true);
            order.put_card(
                CardRef {
                    slab: 1,
                    slot: 2,
                    generation: 0,
                },
                "一二三".as_bytes(),
            );
            order.put_card(
                CardRef {
                    slab: 1,
                    slot: 3,
                    generation: 0,
                },
                b"B",
            );
            order.finish();
            if kind == Kind::LookUpReply {
                put_hold(out, STATUS_EXPIRED, &held(id, None));
                return 3;
            }
            return 2;
        }
        Kind::ImportRows => {
            put_import_id(out, 3);
            ImportRow {
                label: "标签".as_bytes(),
                cost_e4: Some(-1),
                ..ImportRow::new(1, b"AAAA")
            }
            .encode_into(out);
            ImportRow::new(2, b"BBBB").encode_into(out);
            return 2;
        }
        Kind::ImportRowsReply => ImportRowsReply {
            import: 3,
            rows_received: 2,
        }
        .encode_into(out),
        Kind::ImportEnd => ImportEnd { import: 3 }.encode_into(out),
        kind => put_control(kind, out),
    }
    0
}

/// An order that holds cards, or did.
fn held(order_id: OrderId, hold: Option<Hold>) -> HeldOrder {
    HeldOrder {
        order_id,
        lsn: Lsn(9),
        sku: SkuId(1),
        quantity: 3,
        repeat: hold.is_none(),
        hold,
    }
}

fn put_control(kind: Kind, out: &mut BytesMut) {
    let name = || "卡密".to_owned();
    match kind {
        Kind::SkuCreate => encode_control(&SkuCreate { name: name() }, out),
        Kind::SkuCreateReply => encode_control(&SkuCreateReply { sku: 1, lsn: 2 }, out),
        Kind::SkuSet => {
            let set = SkuSet {
                name: name(),
                deal_order: Some(4),
                hold_share_max_percent: Some(50),
                holder: Trailing(Some(HolderCap {
                    cards_max: Some(2),
                    window_ms: None,
                })),
            };
            encode_control(&set, out)
        }
        Kind::SkuSetReply => encode_control(&SkuSetReply::default(), out),
        Kind::SkuListReply => encode_control(
            &SkuListReply {
                skus: vec![
                    SkuRow {
                        sku: 1,
                        name: name()
                    };
                    2
                ],
            },
            out,
        ),
        Kind::ListCards => {
            let list = ListCards {
                sku: Some(name()),
                batch: Some("b".into()),
                cards: vec![CardPlace::default(); 2],
                status: 2,
                after: Some(CardPlace::default()),
            };
            encode_control(&list, out);
        }
        Kind::FindSecretReply | Kind::ListCardsReply => {
            let row = CardRow {
                slab: 1,
                order: Some([7; 16]),
                ..CardRow::default()
            };
            let list = CardList {
                rows: vec![row; 2],
                next: Some(CardPlace::default()),
            };
            encode_control(&list, out);
        }
        Kind::ListBatches => encode_control(&ListBatches { sku: Some(name()) }, out),
        Kind::ListBatchesReply => {
            let row = BatchRow {
                label: name(),
                pool: "main".into(),
                ..BatchRow::default()
            };
            encode_control(&BatchList { rows: vec![row; 2] }, out);
        }
        Kind::Stock => encode_control(&Stock { name: Some(name()) }, out),
        Kind::StockReply => {
            encode_control(
                &StockReply {
                    rows: vec![StockRow {
                        name: name(),
                        free: 9,
                        ..StockRow::default()
                    }],
                },
                out,
            );
        }
        Kind::ImportBegin => {
            let body = ImportBegin {
                sku: name(),
                create_sku: true,
                batch: None,
                pool: Some("main".into()),
                max_uses: MaxUses::Times(5),
            };
            encode_control(&body, out);
        }
        Kind::ImportBeginReply => encode_control(&ImportBeginReply { import: 3, sku: 1 }, out),
        Kind::ImportEndReply => {
            let body = ImportEndReply {
                label: name(),
                counts: vec![ReasonCount {
                    reason: 1,
                    count: 2,
                }],
                rejections: vec![RejectedLine { line: 4, reason: 1 }],
                ..ImportEndReply::default()
            };
            encode_control(&body, out);
        }
        Kind::RoutesLoad => encode_control(
            &RoutesLoad {
                toml: "[[rule]]\n".into(),
                expect: Trailing(Some(7)),
            },
            out,
        ),
        Kind::RoutesShow => {
            let version = Trailing(Some(1));
            encode_control(&RoutesShow { version }, out);
        }
        Kind::RoutesRollback => {
            let back = RoutesRollback {
                to: Some(0),
                expect: None,
            };
            encode_control(&back, out);
        }
        Kind::RoutesHistoryReply => {
            let row = RouteRow {
                version: 3,
                same_as: Some(1),
                ..RouteRow::default()
            };
            encode_control(&RoutesHistoryReply { rows: vec![row; 2] }, out);
        }
        Kind::RoutesLoadReply | Kind::RoutesRollbackReply => {
            encode_control(
                &RoutesLoadReply {
                    version: 2,
                    lsn: 5,
                    warnings: vec!["w".into()],
                },
                out,
            );
        }
        Kind::RoutesShowReply => encode_control(
            &RoutesShowReply {
                version: 2,
                toml: name(),
            },
            out,
        ),
        Kind::RoutesStatusReply => encode_control(
            &RoutesStatusReply {
                version: 2,
                load: 8100,
                lanes: 8100,
                cores: 100,
                log: 0,
                marks: vec![RouteMark {
                    at: 8000,
                    passed: true,
                    flips: 3,
                }],
                rules: vec![RouteRule {
                    name: name(),
                    orders: 7,
                }],
            },
            out,
        ),
        Kind::ChannelMove => {
            let asked = ChannelMove {
                channel: name(),
                what: 1,
                for_ms: 60_000,
            };
            encode_control(&asked, out);
        }
        Kind::ChannelMoveReply => {
            let stands = ChannelMoveReply {
                lsn: 812,
                standing: 2,
                until_unix_ms: 1_700_000_060_000,
            };
            encode_control(&stands, out);
        }
        Kind::ChannelsStatusReply => {
            let row = ChannelRow {
                name: name(),
                kind: 2,
                pool: name(),
                standing: 2,
                cause: 1,
                ejections: 3,
                since_unix_ms: 1_700_000_000_000,
                until_unix_ms: 1_700_000_030_000,
                workers: 2,
                mean_us: 7_000,
                ..ChannelRow::default()
            };
            encode_control(&ChannelsStatusReply { rows: vec![row] }, out);
        }
        Kind::CanaryStart => {
            let start = CanaryStart {
                toml: "[[rule]]\n".into(),
                settings: canary_settings(),
            };
            encode_control(&start, out);
        }
        Kind::CanaryStartReply => {
            let started = CanaryStartReply {
                version: 2,
                lsn: 5,
                share: 5,
                warnings: vec!["w".into()],
            };
            encode_control(&started, out);
        }
        Kind::CanaryAbortReply | Kind::CanaryResumeReply => {
            let changed = CanaryChangeReply {
                version: 2,
                lsn: 5,
                share: 0,
            };
            encode_control(&changed, out);
        }
        Kind::CanaryStatusReply => {
            let group = CanaryGroup {
                orders: 9,
                failed: 2,
                p50_us: 3,
                p99_us: 4,
            };
            let step = CanaryStep {
                lsn: 5,
                unix_ms: 6,
                deed: 1,
                reason: 1,
                share: 5,
                groups: vec![group.clone(); 2],
            };
            let status = CanaryStatusReply {
                version: 2,
                in_force: 1,
                under_way: true,
                settings: canary_settings(),
                next_look: 7,
                groups: vec![group; 2],
                steps: vec![step; 2],
            };
            encode_control(&status, out);
        }
        Kind::Feed => {
            let feed = Feed {
                from: 812,
                skus: vec![1],
                kinds: vec![5, 10],
                facts_max: 100,
                wait_ms: 1000,
            };
            encode_control(&feed, out);
        }
        Kind::FeedReply => {
            let row = FeedRow {
                lsn: 812,
                kind: 5,
                order: Some([7; 16]),
                cards: vec![CardRun::default(); 2],
                text: name(),
                ..FeedRow::default()
            };
            let page = FeedReply {
                next: 813,
                end: 813,
                facts: vec![row],
            };
            encode_control(&page, out);
        }
        Kind::ServerInfoReply => {
            encode_control(
                &ServerInfoReply {
                    version: "0.1.0".into(),
                    cores: 2,
                    ..ServerInfoReply::default()
                },
                out,
            );
        }
        _ => {}
    }
}

fn canary_settings() -> CanarySettings {
    CanarySettings {
        share: Some(5),
        p99_ratio: Some(10_500),
        step_time_ms: Some(60_000),
        ..CanarySettings::default()
    }
}
