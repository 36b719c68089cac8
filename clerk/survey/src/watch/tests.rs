use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::clock;
use clerk::api::config::{AddressBook, Registered, Sealed};
use clerk::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest, News};
use clerk::api::kv::{KvRefusal, KvReply, KvRequest};
use clerk::api::push::{PushReply, PushRequest, Sender};
use clerk::api::status::{CtrlStatus, KvStatus, ReplicaStatus, Role, ShardPhase};
use clerk::api::{Address, ConfigNum, GroupId, Incarnation};
use clerk::connection::{CallError, Connection};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::json;

use super::Watcher;
use crate::reach::Reach;
use crate::sample::{answers, config};

/// A cluster of one controller and of group 1, whose servers are at "a" and "b"; either may be silent.
#[derive(Clone)]
struct Cluster {
    config: Sealed,
    group: Option<KvStatus>,
    controller_is_up: bool,
}

#[derive(Clone)]
struct Scripted(Arc<Mutex<Cluster>>);

impl Scripted {
    fn cluster(&self) -> Cluster {
        self.0.lock().unwrap().clone()
    }
}

fn silent(to: &Address) -> CallError {
    CallError::Lost { address: to.clone(), why: "no answer in time".to_owned() }
}

impl Connection for Scripted {
    fn kv<'a>(
        &'a self,
        to: &'a Address,
        _: GroupId,
        _: KvRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Result<KvReply, KvRefusal>, CallError>> {
        async move {
            match self.cluster().group.filter(|_| to == "a") {
                Some(status) => Ok(Ok(KvReply::Status(Box::new(status)))),
                None => {
                    clock::sleep(deadline).await;
                    Err(silent(to))
                }
            }
        }
        .boxed()
    }

    fn push<'a>(
        &'a self,
        to: &'a Address,
        _: GroupId,
        _: Sender,
        _: PushRequest,
        _: Duration,
    ) -> BoxFuture<'a, Result<Result<PushReply, KvRefusal>, CallError>> {
        async { Err(silent(to)) }.boxed()
    }

    fn ctrl<'a>(
        &'a self,
        to: &'a Address,
        request: CtrlRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Result<CtrlReply, CtrlRefusal>, CallError>> {
        async move {
            let Cluster { config, controller_is_up, .. } = self.cluster();
            if !controller_is_up {
                clock::sleep(deadline).await;
                return Err(silent(to));
            }
            let registered = Registered::new(Incarnation(1), vec!["a".to_owned(), "b".to_owned()]);
            let groups = [(GroupId(1), registered)].into();
            let book = AddressBook { version: 1, groups, ..AddressBook::default() };
            let reply = match request {
                CtrlRequest::Status => CtrlReply::Status(Box::new(controller(&config))),
                CtrlRequest::Query(_) => CtrlReply::Config(config, book),
                CtrlRequest::Placement => CtrlReply::Placement(Box::default()),
                CtrlRequest::History { after } => {
                    let newest = config.num;
                    let all: Vec<Sealed> =
                        (0..newest.0).map(|num| crate::sample::config(num, &[None, None])).collect();
                    let all = all.into_iter().chain([config]);
                    let configs = all.filter(|it| after.is_none_or(|after| it.num > after)).collect();
                    CtrlReply::Configs(Box::new(News { configs, newest, book, move_rate: None }))
                }
                _ => return Err(silent(to)),
            };
            Ok(Ok(reply))
        }
        .boxed()
    }
}

fn controller(config: &Sealed) -> CtrlStatus {
    let replica = ReplicaStatus { id: 1, role: Role::Leader, leader: Some(1), ..ReplicaStatus::default() };
    let digest = Some(config.digest());
    CtrlStatus { replica, config: config.num, digest, key: Some(config.key), recovering: false }
}

fn scripted() -> (Scripted, Watcher) {
    let group = answers(1, 1, &[(0, ShardPhase::Serving), (1, ShardPhase::Serving)]).remove(0).1.ok();
    let cluster = Cluster { config: config(1, &[Some(1), Some(1)]), group, controller_is_up: true };
    let scripted = Scripted(Arc::new(Mutex::new(cluster)));
    let reach = Reach {
        cluster: "sample".to_owned(),
        connection: Arc::new(scripted.clone()),
        controllers: vec!["c".to_owned()],
        known: BTreeMap::new(),
        ids: BTreeMap::new(),
    };
    (scripted, Watcher::new(reach, "ctrl.1".to_owned(), false))
}

#[tokio::test(start_paused = true)]
async fn what_is_silent_keeps_its_last_figures_and_they_show_their_age() {
    let (scripted, mut watcher) = scripted();
    let whole = watcher.look().await.whole();
    assert_eq!(whole["ages"], json!({"ctrl.1": 0.0, "1.1": 0.0, "1.2": null}));
    assert_eq!(whole["last"], json!({"servers": {}, "groups": {}, "config": null}));
    assert_eq!((&whole["rates"], &whole["writable"]), (&json!(null), &json!(false)));
    let known = whole["groups"][0].clone();
    assert_eq!(known["shards"].as_array().map(Vec::len), Some(2));

    scripted.0.lock().unwrap().group = None;
    clock::sleep(Duration::from_secs(3)).await;
    let begun = clock::now();
    let seen = watcher.look().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "a silent server costs less than a second");
    let state = &seen.state;
    assert_eq!(state["groups"][0]["replicas"][0]["up"], json!(false));
    assert_eq!(state["groups"][0]["shards"], json!([]));
    let age = state["ages"]["1.1"].as_f64().unwrap();
    assert!((3.0..5.0).contains(&age), "{age}");
    assert_eq!(state["last"]["servers"]["1.1"], known["replicas"][0]);
    assert_eq!(state["last"]["groups"]["1"]["group"], known);
    assert_eq!(state["health"]["problems"][0], json!("Group 1: no server answers."));
    assert!(state["rates"].is_object());
}

#[tokio::test(start_paused = true)]
async fn without_controllers_the_configuration_stays_the_one_that_was_seen() {
    let (scripted, mut watcher) = scripted();
    watcher.look().await;
    scripted.0.lock().unwrap().controller_is_up = false;
    clock::sleep(Duration::from_secs(1)).await;
    let state = watcher.look().await.state;
    assert_eq!((&state["config"], &state["placement"]), (&json!(1), &json!(null)));
    assert_eq!(state["last"]["config"]["document"]["placement"]["version"], json!(0));
    assert_eq!(state["groups"][0]["replicas"][0]["up"], json!(true), "groups are still asked");
    assert_eq!(state["health"]["ok"], json!(false));
}

#[tokio::test(start_paused = true)]
async fn the_history_has_every_configuration_and_when_a_new_one_was_seen() {
    let (scripted, mut watcher) = scripted();
    let history = watcher.look().await.history;
    let all = history["history"].as_array().unwrap();
    let shown: Vec<_> =
        all.iter().map(|config| (&config["num"], &config["owners"], &config["moved"])).collect();
    assert_eq!(shown, [(&json!(0), &json!([0, 0]), &json!(0)), (&json!(1), &json!([1, 1]), &json!(2))]);
    assert!(all.iter().all(|config| config["seen_at"].is_null()), "they may be of any age: {history}");

    scripted.0.lock().unwrap().config = config(2, &[Some(1), None]);
    let history = watcher.look().await.history;
    let newest = &history["history"][2];
    assert_eq!((&newest["num"], &newest["owners"]), (&json!(2), &json!([1, 0])));
    assert!(newest["seen_at"].as_u64().is_some());
    assert_eq!(watcher.configs.last().map(|config| config.num), Some(ConfigNum(2)));
}

#[tokio::test(start_paused = true)]
async fn the_past_has_a_moment_for_each_look_and_no_more_than_ten_minutes() {
    let (_, mut watcher) = scripted();
    for _ in 0..3 {
        watcher.look().await;
        clock::sleep(Duration::from_millis(100)).await;
    }
    let past = watcher.look().await.past;
    assert_eq!(past["past"]["at"].as_array().map(Vec::len), Some(4));
    assert_eq!(past["past"]["groups"]["1"]["requests"], json!([null, 0.0, 0.0, 0.0]));
}
