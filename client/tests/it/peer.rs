//! A peer that says what a test tells it to, and nothing by itself.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use croupier_client::{Client, ClientBuilder};
use croupier_protocol::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// No script waits longer than this for the client.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Peer {
    listener: TcpListener,
    pub hello: HelloReply,
}

impl Peer {
    pub async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hello = HelloReply {
            version: 1,
            frame_bytes_max: FRAME_BYTES_MAX_DEFAULT,
            features: 0,
            store_id: [7; 16],
            orders_per_frame_max: ORDERS_PER_FRAME_MAX_DEFAULT,
            orders_in_flight_max: ORDERS_IN_FLIGHT_MAX_DEFAULT,
            quantity_max: QUANTITY_MAX_DEFAULT,
        };
        Self { listener, hello }
    }

    pub fn url(&self) -> String {
        format!("croupier://{}", self.listener.local_addr().unwrap())
    }

    pub fn builder(&self) -> ClientBuilder {
        Client::builder()
            .server(&self.url())
            .unwrap()
            .call_timeout(Duration::from_secs(5))
    }

    /// A client that is connected, and its connection.
    pub async fn connected(&self, builder: ClientBuilder) -> (Client, Conn) {
        let (client, conn) = tokio::join!(builder.build(), self.accept());
        (client.unwrap(), conn)
    }

    pub async fn accept_silently(&self) -> Conn {
        let (stream, _) = timeout(PATIENCE, self.listener.accept())
            .await
            .expect("the client connects")
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Conn {
            stream,
            received: BytesMut::new(),
        }
    }

    pub async fn accept(&self) -> Conn {
        let mut conn = self.accept_silently().await;
        let (header, body) = conn.request().await;
        assert_eq!(
            (header.kind, Hello::decode(&body)),
            (Kind::Hello, Ok(Hello::default()))
        );
        conn.reply(header, 0, 0, |out| self.hello.encode_into(out))
            .await;
        conn
    }

    /// True if nobody connects for a while.
    pub async fn is_left_alone(&self) -> bool {
        timeout(Duration::from_millis(100), self.listener.accept())
            .await
            .is_err()
    }
}

pub struct Conn {
    stream: TcpStream,
    received: BytesMut,
}

impl Conn {
    /// The next frame, or `None` when the client has closed the connection.
    pub async fn try_request(&mut self) -> Option<(FrameHeader, Bytes)> {
        loop {
            if let Some(header) = peek(&self.received, FRAME_BYTES_MAX_LIMIT).unwrap() {
                let frame = self.received.split_to(header.length as usize).freeze();
                return Some((header, frame.slice(FRAME_HEADER_BYTES..)));
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
            match read.expect("the client sends or closes") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub async fn request(&mut self) -> (FrameHeader, Bytes) {
        self.try_request()
            .await
            .expect("the client sends a request")
    }

    /// True if the client sends nothing for a while.
    pub async fn hears_nothing(&mut self) -> bool {
        timeout(Duration::from_millis(100), self.try_request())
            .await
            .is_err()
    }

    pub async fn is_closed(&mut self) -> bool {
        self.try_request().await.is_none()
    }

    pub async fn expect(&mut self, kind: Kind) -> (FrameHeader, Bytes) {
        let (header, body) = self.request().await;
        assert_eq!(header.kind, kind);
        (header, body)
    }

    pub async fn issue(&mut self) -> (FrameHeader, Vec<StepItem>) {
        self.steps(Kind::Issue).await
    }

    pub async fn steps(&mut self, kind: Kind) -> (FrameHeader, Vec<StepItem>) {
        let (header, body) = self.expect(kind).await;
        (header, step_items(&body, header.count).unwrap().collect())
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // The client may have closed: what it makes of that is what the test looks at.
        let _ = self.stream.write_all(bytes).await;
    }

    pub async fn frame(
        &mut self,
        kind: Kind,
        id: u64,
        count: u16,
        flags: u16,
        encode: impl FnOnce(&mut BytesMut),
    ) {
        let mut wire = BytesMut::new();
        let mut writer = FrameWriter::begin(&mut wire, kind, id);
        encode(writer.body());
        writer.set_count(count);
        writer.set_flags(flags);
        writer.finish();
        self.send(&wire).await;
    }

    pub async fn reply(
        &mut self,
        to: FrameHeader,
        count: u16,
        flags: u16,
        encode: impl FnOnce(&mut BytesMut),
    ) {
        self.frame(to.kind.reply_of(), to.request_id, count, flags, encode)
            .await;
    }

    pub async fn control(&mut self, to: FrameHeader, flags: u16, body: &impl ControlBody) {
        self.reply(to, 0, flags, |out| encode_control(body, out))
            .await;
    }

    /// Deals one card to each item: its secret names the order.
    pub async fn deal(&mut self, to: FrameHeader, items: &[StepItem], repeat: bool) {
        let count = items.len() as u16;
        self.reply(to, count, 0, |out| {
            items
                .iter()
                .for_each(|item| put_dealt(out, item.order_id, repeat))
        })
        .await;
    }

    /// Refuses each item.
    pub async fn refuse(
        &mut self,
        to: FrameHeader,
        items: &[StepItem],
        refusal: Refusal,
        retry_after_ms: u32,
    ) {
        let put = |out: &mut BytesMut| {
            items.iter().for_each(|item| {
                put_refused(out, item.order_id, item.sku, refusal, retry_after_ms)
            });
        };
        self.reply(to, items.len() as u16, 0, put).await;
    }

    pub async fn refuse_whole(
        &mut self,
        to: FrameHeader,
        refusal: Refusal,
        retry_after_ms: u32,
        text: &str,
    ) {
        let refused = RefusedBody {
            refusal,
            retry_after_ms,
            text: text.to_owned(),
        };
        self.frame(Kind::Refused, to.request_id, 0, 0, |out| {
            refused.encode_into(out)
        })
        .await;
    }

    pub async fn fault(mut self, fault: FaultCode, text: &str) {
        let body = FaultBody {
            fault,
            text: text.to_owned(),
        };
        self.frame(Kind::Fault, 0, 0, 0, |out| body.encode_into(out))
            .await;
        // What the client sent meanwhile is read, or the kernel would reset the connection under the Fault.
        self.stream.shutdown().await.unwrap();
        while self.try_request().await.is_some() {}
    }

    /// Deals whatever is ordered until the client closes.
    pub async fn serve(mut self) {
        while let Some((header, body)) = self.try_request().await {
            let items: Vec<_> = step_items(&body, header.count).unwrap().collect();
            self.deal(header, &items, false).await;
        }
    }
}

pub fn put_dealt(out: &mut BytesMut, order_id: OrderId, repeat: bool) {
    let mut writer = IssuedWriter::begin(out, order_id, Lsn(9), SkuId(7), repeat);
    writer.put_card(
        CardRef {
            slab: 1,
            slot: 2,
            generation: 3,
        },
        secret_of(order_id).as_bytes(),
    );
    writer.finish();
}

pub fn secret_of(order_id: OrderId) -> String {
    format!("card of {order_id}")
}
