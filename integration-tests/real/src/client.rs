//! The product's client library, for tests that measure single operations or need more than the
//! command line allows.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clerk::api::Address;
use clerk::connection::{Connection, Options as ConnectionOptions, TarpcConnection};
use clerk::kv::{Clerk, Options};
use futures::stream::{self, StreamExt as _};
use rand::rngs::Xoshiro256PlusPlus as Generator;
use rand::{Rng as _, SeedableRng as _};
use tokio::runtime::{Builder, Runtime};

/// The cluster.
#[derive(Clone, Debug)]
pub struct Target {
    pub cluster: String,
    pub controllers: Vec<Address>,
}

impl Target {
    /// Connections to its servers.
    pub fn connection(&self) -> Arc<dyn Connection> {
        Arc::new(TarpcConnection::new(ConnectionOptions::of(&self.cluster)))
    }

    /// A clerk with its own connections.
    pub fn clerk(&self) -> Clerk {
        let options = Options { seed: rand::random(), deadline: Duration::from_secs(10), sessions: true };
        Clerk::new(self.connection(), self.controllers.clone(), options)
    }
}

/// A clerk for tests that are not async.
pub struct Client {
    pub clerk: Clerk,
    runtime: Runtime,
}

impl Client {
    /// A client of this cluster.
    ///
    /// # Panics
    /// Without a runtime.
    pub fn new(target: &Target) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let clerk = runtime.block_on(async { target.clerk() });
        Self { clerk, runtime }
    }

    /// Runs a future to its end.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Puts `count` values of `bytes` incompressible bytes under keys in the shard of `tag`.
    ///
    /// # Panics
    /// When a put fails.
    pub fn fill(&self, tag: &str, count: u64, bytes: usize) {
        let put = |number| {
            let (clerk, key) = (self.clerk.clone(), key(tag, number));
            async move { clerk.put(key, value(number, bytes)).await.map(drop) }
        };
        self.for_each(count, put);
    }

    /// Checks that everything that [`Client::fill`] put is there.
    ///
    /// # Panics
    /// When it is not.
    pub fn check_filled(&self, tag: &str, count: u64, bytes: usize) {
        let check = |number| {
            let (clerk, key) = (self.clerk.clone(), key(tag, number));
            async move {
                let got = clerk.get(key.clone()).await?;
                let same = got.value.as_deref() == Some(&value(number, bytes)[..]);
                assert!(same, "{key} came back changed: {:?} bytes", got.value.map(|value| value.len()));
                Ok(())
            }
        };
        self.for_each(count, check);
    }

    fn for_each<F>(&self, count: u64, act: impl Fn(u64) -> F)
    where
        F: Future<Output = Result<(), clerk::kv::Error>>,
    {
        const AT_ONCE: usize = 16;
        self.run(async {
            let mut all = stream::iter(0..count).map(act).buffer_unordered(AT_ONCE);
            while let Some(result) = all.next().await {
                result.unwrap_or_else(|error| panic!("{error}"));
            }
        });
    }
}

fn key(tag: &str, number: u64) -> String {
    format!("{{{tag}}}{number:08}")
}

fn value(number: u64, bytes: usize) -> Bytes {
    let mut value = vec![0; bytes];
    Generator::seed_from_u64(number).fill_bytes(&mut value);
    Bytes::from(value)
}
