use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Changed, CtrlClerk, Error};
use crate::api::config::{AddressBook, Place};
use crate::api::ctrl::{Change, CtrlRefusal, CtrlReply, CtrlRequest, News};
use crate::api::{ConfigNum, GroupId, SessionId};
use crate::connection::Connection;
use crate::fake::{Answer, Ask, Fake};

fn clerk(fake: &Arc<Fake>) -> CtrlClerk {
    let controllers = ["a", "b", "c"].map(str::to_owned).to_vec();
    CtrlClerk::new(Arc::clone(fake) as Arc<dyn Connection>, controllers, 7)
}

fn leave(group: u64) -> Change {
    Change::Leave { groups: BTreeSet::from([GroupId(group)]), force: false }
}

fn made() -> Answer {
    Answer::Ctrl(Ok(CtrlReply::Changed { config: ConfigNum(2), moves: Vec::new() }))
}

/// Opens sessions 1, 2, ... and answers the changes from `answers`, which ends with success.
fn scripted(answers: Vec<Answer>) -> Arc<Fake> {
    let (mut opened, mut answers) = (0, answers.into_iter());
    Fake::new(move |_, ask| match ask {
        Ask::Ctrl(CtrlRequest::Open) => {
            opened += 1;
            Answer::Ctrl(Ok(CtrlReply::Opened(SessionId(opened))))
        }
        Ask::Ctrl(_) => answers.next().unwrap_or_else(made),
        Ask::Kv(..) => panic!("no group is asked here"),
    })
}

/// Session and number of every change that was sent.
fn tickets(fake: &Fake) -> Vec<(u64, u64)> {
    let ticket = |(_, ask)| match ask {
        Ask::Ctrl(CtrlRequest::Change { ticket, .. }) => Some((ticket.session.0, ticket.seq.0)),
        _ => None,
    };
    fake.asked().into_iter().filter_map(ticket).collect()
}

fn expired() -> Answer {
    Answer::Ctrl(Err(CtrlRefusal::SessionExpired))
}

#[tokio::test(start_paused = true)]
async fn a_change_keeps_its_ticket_on_every_attempt_and_the_next_has_another() {
    let fake = scripted(vec![Answer::Lost, Answer::Ctrl(Err(CtrlRefusal::Unknown)), Answer::NotSent]);
    let clerk = clerk(&fake);
    let done = Ok(Changed { config: ConfigNum(2), moves: Vec::new() });
    assert_eq!(clerk.change(leave(1)).await, done);
    assert_eq!(clerk.change(leave(2)).await, done);
    assert_eq!(tickets(&fake), [(1, 1), (1, 1), (1, 1), (1, 1), (1, 2)]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_session_is_replaced_if_definitely_nothing_was_done() {
    let fake = scripted(vec![expired()]);
    assert!(clerk(&fake).change(leave(1)).await.is_ok());
    assert_eq!(tickets(&fake), [(1, 1), (2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_session_after_a_lost_attempt_leaves_the_outcome_unknown() {
    let fake = scripted(vec![Answer::Lost, expired()]);
    assert_eq!(clerk(&fake).change(leave(1)).await, Err(Error::Unknown));
    assert_eq!(tickets(&fake).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_handed_on_in_its_own_type() {
    let fake = scripted(vec![Answer::Ctrl(Err(CtrlRefusal::LastGroup))]);
    assert_eq!(clerk(&fake).change(leave(1)).await, Err(Error::Refused(CtrlRefusal::LastGroup)));
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_unavailable_but_a_lost_change_is_unknown() {
    let fake = Fake::new(|_, _| Answer::NotSent);
    assert!(matches!(clerk(&fake).change(leave(1)).await, Err(Error::Unavailable { .. })));
    let fake = Fake::new(|_, ask| match ask {
        Ask::Ctrl(CtrlRequest::Open) => Answer::Ctrl(Ok(CtrlReply::Opened(SessionId(1)))),
        _ => Answer::Lost,
    });
    assert_eq!(clerk(&fake).change(leave(1)).await, Err(Error::Unknown));
    assert!(tickets(&fake).iter().all(|ticket| *ticket == (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_to_any_controller_that_answers() {
    let fake = Fake::new(|to, _| match to {
        "b" => {
            let (configs, book) = (Vec::new(), AddressBook::default());
            Answer::Ctrl(Ok(CtrlReply::Configs(Box::new(News {
                configs,
                newest: ConfigNum(1),
                book,
                move_rate: None,
            }))))
        }
        _ => Answer::NotSent,
    });
    assert!(clerk(&fake).watch(Place::default(), 0).await.is_ok());
}
