//! The wire: frames out of a stream, and every body.

use std::fmt::Debug;

use bytes::BytesMut;
use croupier_protocol::*;
use tokio_util::codec::{Decoder as _, Encoder as _};

/// A stream of bytes from a peer; then the same bytes as the body of a frame that is in order.
pub fn frame(data: &[u8]) {
    stream(data);
    let [kind, count_low, count_high, body @ ..] = data else {
        return;
    };
    let count = u16::from_le_bytes([*count_low, *count_high]);
    // Any number is some kind, so that few bytes are wasted on unknown ones.
    let kind = Kind::ALL[usize::from(*kind) % Kind::ALL.len()];
    let mut sealed = BytesMut::new();
    let mut writer = FrameWriter::begin(&mut sealed, kind, 7);
    writer.set_count(count);
    writer.body().extend_from_slice(body);
    writer.finish();
    if sealed.len() <= FRAME_BYTES_MAX_DEFAULT as usize {
        let header = peek(&sealed, FRAME_BYTES_MAX_DEFAULT)
            .expect("a written frame")
            .expect("whole");
        assert_eq!(
            (header.kind, header.count, header.body_of(&sealed)),
            (kind, count, body)
        );
        stream(&sealed);
    }
}

/// The frames of a stream, however it arrives.
fn stream(bytes: &[u8]) {
    let mut codec = FrameCodec::default();
    let (whole, error) = frames(&mut codec, bytes, bytes.len().max(1));
    let step = 1 + bytes.first().map_or(0, |&byte| usize::from(byte) % 31);
    let (in_parts, error_in_parts) = frames(&mut codec, bytes, step);
    assert_eq!(
        whole, in_parts,
        "a stream means the same in parts of {step} bytes"
    );
    assert_eq!(error, error_in_parts);
    for frame in &whole {
        body(frame.header.kind, frame.header.count, &frame.body);
        let mut again = BytesMut::new();
        codec
            .encode(frame, &mut again)
            .expect("a frame that was read can be written");
        assert_eq!(
            codec.decode(&mut again).expect("and read again").as_ref(),
            Some(frame)
        );
    }
}

fn frames(codec: &mut FrameCodec, bytes: &[u8], step: usize) -> (Vec<Frame>, Option<String>) {
    let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
    for part in bytes.chunks(step) {
        buffer.extend_from_slice(part);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                // A reader that sees less of a frame may say less of its fault, but never that there is none.
                Err(CodecError::Frame(error)) => {
                    return (found, Some(error.fault_code().name().to_owned()));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    (found, None)
}

fn body(kind: Kind, count: u16, body: &[u8]) {
    match kind {
        Kind::Hello => fixed(body, Hello::decode, Hello::encode_into),
        Kind::HelloReply => fixed(body, HelloReply::decode, HelloReply::encode_into),
        Kind::ImportRowsReply => fixed(body, ImportRowsReply::decode, ImportRowsReply::encode_into),
        Kind::ImportEnd => fixed(body, ImportEnd::decode, ImportEnd::encode_into),
        Kind::Refused => fixed(body, RefusedBody::decode, RefusedBody::encode_into),
        Kind::Fault => fixed(body, FaultBody::decode, FaultBody::encode_into),
        Kind::Issue | Kind::Reserve | Kind::Commit | Kind::Cancel | Kind::Extend => {
            issue(body, count);
        }
        Kind::LookUp => {
            let _ = lookup_items(body, count).map(|ids| ids.count());
        }
        Kind::IssueReply
        | Kind::LookUpReply
        | Kind::ReserveReply
        | Kind::CommitReply
        | Kind::CancelReply
        | Kind::PickReply
        | Kind::ExtendReply => answers(body, count),
        Kind::ImportRows => rows(body, count),
        Kind::SkuCreate => control::<SkuCreate>(body),
        Kind::SkuCreateReply => control::<SkuCreateReply>(body),
        Kind::SkuSet => control::<SkuSet>(body),
        Kind::SkuSetReply => control::<SkuSetReply>(body),
        Kind::SkuListReply => control::<SkuListReply>(body),
        Kind::Stock => control::<Stock>(body),
        Kind::StockReply => control::<StockReply>(body),
        Kind::MoveCards => control::<MoveCards>(body),
        Kind::Pick => control::<Pick>(body),
        Kind::ListOrders => control::<ListOrders>(body),
        Kind::ListOrdersReply => control::<OrderList>(body),
        Kind::MoveCardsReply => control::<MoveCardsReply>(body),
        Kind::DeliverReply => control::<DeliverReply>(body),
        Kind::TakeJobs => control::<TakeJobs>(body),
        Kind::TakeJobsReply => control::<TakeJobsReply>(body),
        Kind::DeliverJobReply => control::<DeliverJobReply>(body),
        Kind::EndJob => control::<EndJob>(body),
        Kind::EndJobReply => control::<EndJobReply>(body),
        Kind::RetryList => control::<RetryList>(body),
        Kind::RetryListReply => control::<RetryListReply>(body),
        Kind::RetryMove => control::<RetryMove>(body),
        Kind::RetryMoveReply => control::<RetryMoveReply>(body),
        Kind::DeliverJob => {
            if let Ok((deliver, rows)) = DeliverJob::decode(body, count) {
                let rows: Result<Vec<ImportRow<'_>>, _> = rows.collect();
                let mut again = BytesMut::new();
                deliver.encode_into(&rows.unwrap_or_default(), &mut again);
                assert!(again.len() <= body.len());
            }
        }
        Kind::Deliver => {
            if let Ok((deliver, rows)) = Deliver::decode(body, count) {
                let rows: Result<Vec<ImportRow<'_>>, _> = rows.collect();
                let mut again = BytesMut::new();
                deliver.encode_into(&rows.unwrap_or_default(), &mut again);
                assert!(again.len() <= body.len());
            }
        }
        Kind::FindSecret => {
            if let Ok(find) = FindSecret::decode(body) {
                let mut again = BytesMut::new();
                find.encode_into(&mut again);
                assert_eq!(again, body);
            }
        }
        Kind::ListCards => control::<ListCards>(body),
        Kind::FindSecretReply | Kind::ListCardsReply => control::<CardList>(body),
        Kind::ListBatches => control::<ListBatches>(body),
        Kind::ListBatchesReply => control::<BatchList>(body),
        Kind::ImportBegin => control::<ImportBegin>(body),
        Kind::ImportBeginReply => control::<ImportBeginReply>(body),
        Kind::ImportEndReply => control::<ImportEndReply>(body),
        Kind::RoutesLoad => control::<RoutesLoad>(body),
        Kind::RoutesLoadReply | Kind::RoutesRollbackReply => control::<RoutesLoadReply>(body),
        Kind::RoutesRollback => control::<RoutesRollback>(body),
        Kind::RoutesShow => control::<RoutesShow>(body),
        Kind::RoutesHistoryReply => control::<RoutesHistoryReply>(body),
        Kind::RoutesShowReply => control::<RoutesShowReply>(body),
        Kind::RoutesStatusReply => control::<RoutesStatusReply>(body),
        Kind::ChannelMove => control::<ChannelMove>(body),
        Kind::ChannelMoveReply => control::<ChannelMoveReply>(body),
        Kind::ChannelsStatusReply => control::<ChannelsStatusReply>(body),
        Kind::CanaryStart => control::<CanaryStart>(body),
        Kind::CanaryStartReply => control::<CanaryStartReply>(body),
        Kind::CanaryStatusReply => control::<CanaryStatusReply>(body),
        Kind::CanaryAbortReply | Kind::CanaryResumeReply => control::<CanaryChangeReply>(body),
        Kind::Feed => control::<Feed>(body),
        Kind::FeedReply => control::<FeedReply>(body),
        Kind::ServerInfoReply => control::<ServerInfoReply>(body),
        Kind::Ping
        | Kind::PingReply
        | Kind::ServerInfo
        | Kind::SkuList
        | Kind::RoutesHistory
        | Kind::ChannelsStatus
        | Kind::CanaryStatus
        | Kind::CanaryAbort
        | Kind::CanaryResume
        | Kind::RoutesStatus => {}
    }
}

fn fixed<T: PartialEq + Debug>(
    body: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, BodyError>,
    encode: impl Fn(&T, &mut BytesMut),
) {
    if let Ok(value) = decode(body) {
        let mut again = BytesMut::new();
        encode(&value, &mut again);
        assert_eq!(decode(&again).as_ref(), Ok(&value));
    }
}

fn control<T: ControlBody + PartialEq + Debug>(body: &[u8]) {
    if let Ok(value) = decode_control::<T>(body) {
        let mut again = BytesMut::new();
        encode_control(&value, &mut again);
        assert_eq!(again, body, "a control body has one form");
    }
}

fn issue(body: &[u8], count: u16) {
    let Ok(items) = step_items(body, count) else {
        return;
    };
    assert_eq!(items.len(), usize::from(count));
    let mut again = BytesMut::new();
    for item in items {
        item.encode_into(&mut again);
    }
    assert_eq!(again, body, "what was read is what was written");
}

fn answers(body: &[u8], count: u16) {
    let all = order_items(body, count);
    let mut seen = 0;
    for view in OrderItems::new(body, count) {
        let Ok(view) = view else { break };
        seen += 1;
        let _ = format!("{view:?}");
        for card in view.cards() {
            let _ = card;
        }
    }
    if all.is_ok() {
        assert_eq!(seen, count);
    }
}

fn rows(body: &[u8], count: u16) {
    let Ok((_, rows)) = import_rows(body, count) else {
        return;
    };
    let mut seen = 0;
    for row in rows {
        let Ok(row) = row else { return };
        seen += 1;
        let mut again = BytesMut::new();
        row.encode_into(&mut again);
        assert_eq!(again.len(), row.encoded_bytes());
    }
    assert_eq!(seen, count);
}
