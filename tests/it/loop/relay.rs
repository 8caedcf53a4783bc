//! The wire between the two: a TCP relay with an address that stays, whoever is behind it and whether anybody is.
//!
//! It can hold or cut what is answered to HTTP/1, which is how either side is told of users and webhooks. Connections
//! that speak gRPC are left alone: they are cut by having nobody behind them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// It comes through.
    Pass,
    /// It comes when the test lets it.
    Hold,
    /// It is lost: the connection breaks when it should come.
    Lose,
}

/// A relay, until it is dropped.
pub struct Relay {
    address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
    answers: watch::Sender<Answers>,
    /// Answers that were held or lost so far.
    troubled: watch::Receiver<usize>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    /// A wire with nobody behind it.
    pub async fn start() -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let (answers, watched) = watch::channel(Answers::Pass);
        let (trouble, troubled) = watch::channel(0);
        let behind = target.clone();
        let trouble = Arc::new(trouble);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let behind = *behind.lock().unwrap();
                let (watched, trouble) = (watched.clone(), trouble.clone());
                if let Some(behind) = behind {
                    tokio::spawn(async move {
                        if let Ok(far) = TcpStream::connect(behind).await {
                            drop(carry(near, far, watched, &trouble).await);
                        }
                    });
                }
            }
        });
        Relay { address, target, answers, troubled, task }
    }

    /// What others call.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Leads to another address, or to nobody; connections that are open stay as they are.
    pub fn lead_to(&self, target: Option<SocketAddr>) {
        *self.target.lock().unwrap() = target;
    }

    /// Decides what becomes of answers from now on, those that are held among them.
    pub fn answers(&self, answers: Answers) {
        self.answers.send_replace(answers);
    }

    /// How many answers were held or lost.
    pub fn troubled(&self) -> usize {
        *self.troubled.borrow()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(
    near: TcpStream,
    far: TcpStream,
    mut answers: watch::Receiver<Answers>,
    trouble: &watch::Sender<usize>,
) -> std::io::Result<()> {
    let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.into_split(), far.into_split());
    let mut first = [0; 3];
    from_near.read_exact(&mut first).await?;
    to_far.write_all(&first).await?;
    // HTTP/2 begins with `PRI`, and gRPC is never anything else.
    let is_left_alone = &first == b"PRI";
    let forth = async { tokio::io::copy(&mut from_near, &mut to_far).await.map(drop) };
    let back = async {
        let mut piece = vec![0; 16 * 1024];
        loop {
            let length = from_far.read(&mut piece).await?;
            if length == 0 {
                return Ok(());
            }
            let decided = *answers.borrow_and_update();
            if !is_left_alone && decided != Answers::Pass {
                trouble.send_modify(|count| *count += 1);
                let last = answers.wait_for(|answers| *answers != Answers::Hold).await;
                if last.is_ok_and(|last| *last == Answers::Lose) {
                    return Ok(());
                }
            }
            to_near.write_all(&piece[..length]).await?;
        }
    };
    // Whichever ends first ends both, as a broken wire does.
    tokio::select! {
        done = forth => done,
        done = back => done,
    }
}
