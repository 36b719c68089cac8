//! A scripted [`Connection`]: every call takes a millisecond of virtual time and is remembered.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::clock;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest};
use crate::api::kv::{KvRefusal, KvReply, KvRequest};
use crate::api::push::{PushReply, PushRequest, Sender};
use crate::api::{Address, GroupId};
use crate::connection::{CallError, Called, Connection};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Kv(GroupId, KvRequest),
    Ctrl(CtrlRequest),
}

pub(crate) enum Answer {
    Kv(Result<KvReply, KvRefusal>),
    Ctrl(Result<CtrlReply, CtrlRefusal>),
    NotSent,
    Busy,
    /// After so long.
    Late(Duration, Result<KvReply, KvRefusal>),
    /// Nothing until the deadline.
    Lost,
    /// Nothing, and that is known at once.
    Broken,
    Foreign,
}

type Script = dyn FnMut(&str, &Ask) -> Answer + Send;

pub(crate) struct Fake {
    script: Mutex<Box<Script>>,
    asked: Mutex<Vec<(Address, Ask)>>,
}

impl Fake {
    pub(crate) fn new(script: impl FnMut(&str, &Ask) -> Answer + Send + 'static) -> Arc<Self> {
        Arc::new(Self { script: Mutex::new(Box::new(script)), asked: Mutex::default() })
    }

    /// Everything asked so far.
    pub(crate) fn asked(&self) -> Vec<(Address, Ask)> {
        self.asked.lock().unwrap().clone()
    }

    /// The servers asked so far.
    pub(crate) fn servers(&self) -> Vec<Address> {
        self.asked().into_iter().map(|(server, _)| server).collect()
    }

    async fn call(&self, to: &Address, ask: Ask, deadline: Duration) -> Result<Answer, CallError> {
        self.asked.lock().unwrap().push((to.clone(), ask.clone()));
        clock::sleep(Duration::from_millis(1)).await;
        let answer = (self.script.lock().unwrap())(to, &ask);
        let (address, why) = (to.clone(), "scripted".to_owned());
        match answer {
            Answer::NotSent => Err(CallError::NotSent { address, why }),
            Answer::Busy => Err(CallError::Busy { address, why }),
            Answer::Foreign => Err(CallError::Refused { address, why }),
            Answer::Late(after, answer) if after < deadline => {
                clock::sleep(after.saturating_sub(Duration::from_millis(1))).await;
                Ok(Answer::Kv(answer))
            }
            Answer::Broken => Err(CallError::Lost { address, why }),
            Answer::Late(..) | Answer::Lost => {
                clock::sleep(deadline.saturating_sub(Duration::from_millis(1))).await;
                Err(CallError::Lost { address, why })
            }
            answer => Ok(answer),
        }
    }
}

impl Connection for Fake {
    fn kv<'a>(
        &'a self,
        to: &'a Address,
        group: GroupId,
        request: KvRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Called<KvReply, KvRefusal>> {
        async move {
            match self.call(to, Ask::Kv(group, request), deadline).await? {
                Answer::Kv(answer) => Ok(answer),
                _ => panic!("the script answers a group's request like a controller"),
            }
        }
        .boxed()
    }

    fn push<'a>(
        &'a self,
        _: &'a Address,
        _: GroupId,
        _: Sender,
        _: PushRequest,
        _: Duration,
    ) -> BoxFuture<'a, Called<PushReply, KvRefusal>> {
        panic!("clients push nothing")
    }

    fn ctrl<'a>(
        &'a self,
        to: &'a Address,
        request: CtrlRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Called<CtrlReply, CtrlRefusal>> {
        async move {
            match self.call(to, Ask::Ctrl(request), deadline).await? {
                Answer::Ctrl(answer) => Ok(answer),
                _ => panic!("the script answers a controller's request like a group"),
            }
        }
        .boxed()
    }
}
