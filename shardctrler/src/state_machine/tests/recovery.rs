//! New controllers, recovered from what the groups hold.

use super::*;

/// The end of a cluster's history, as groups hold it.
fn recovery(cluster: &Cluster, from: u64) -> Recovery {
    let after = from.checked_sub(1).map(ConfigNum);
    match cluster.query(Query::History { after }) {
        Ok(CtrlReply::Configs(news)) => Recovery { configs: news.configs, book: news.book },
        other => panic!("{other:?}"),
    }
}

fn recovered(recovery: &Recovery) -> (Cluster, Verdict) {
    let mut cluster =
        Cluster { machine: Controller::default(), rows: MapRows::default(), session: SessionId(0), seq: 0 };
    cluster.machine.load(&cluster.rows);
    let verdict = cluster.apply(Command::Recover { recovery: recovery.clone(), sessions: 1 << 40 });
    (cluster, verdict)
}

#[test]
fn recovered_controllers_go_on_with_the_history_that_the_groups_hold() {
    let mut lost = Cluster::of(10);
    changed(lost.change(join([101, 102])));
    changed(lost.change(give(0, 102)));
    let (newest, book) = lost.newest();
    let (mut new, verdict) = recovered(&recovery(&lost, 1));
    assert_eq!(verdict, Ok(CtrlReply::Recovered(newest.place())));
    assert_eq!(new.newest().0, newest);
    assert!(new.newest().1.version > book.version + (1 << 31), "no version of the book returns");
    assert_eq!(rows::cluster_key(&new.rows), Some(KEY));
    new.session = new.open();
    assert!(new.session.0 > 1 << 32, "no name of a session returns: {:?}", new.session);
    let (num, moves) = changed(new.change(join([103])));
    assert_eq!((num, moves.len()), (3, 3));
    assert_eq!(new.newest().0.before, newest.digest());
    // What only the lost controllers knew is reported as gone.
    let forgotten = CtrlRefusal::ForgottenConfig { asked: ConfigNum(0), oldest: ConfigNum(1) };
    assert_eq!(new.query(Query::Config(Some(ConfigNum(0)))), Err(forgotten));
    // Known data stays known data.
    let wiped = NewGroup { incarnation: Incarnation(7), ..new_group(101) };
    assert_eq!(new.change(join_as(101, wiped)), Err(CtrlRefusal::OtherIncarnation(GroupId(101))));
    // Done once more it is harmless, and anything else is refused.
    let sessions = 1 << 50;
    let again = new.apply(Command::Recover { recovery: recovery(&lost, 1), sessions });
    assert_eq!(again, Ok(CtrlReply::Recovered(new.newest().0.place())));
    changed(lost.change(join([104])));
    let other = new.apply(Command::Recover { recovery: recovery(&lost, 1), sessions });
    assert!(matches!(other, Err(CtrlRefusal::NotRecovered(_))), "{other:?}");
    let restarted = Controller::default();
    let before = new.newest();
    new.machine = restarted;
    new.machine.load(&new.rows);
    assert_eq!(new.newest(), before);
}

#[test]
fn a_recovery_that_contradicts_itself_is_refused() {
    let mut lost = Cluster::of(10);
    changed(lost.change(join([101, 102])));
    changed(lost.change(give(0, 102)));
    let good = recovery(&lost, 0);
    let mut gap = good.clone();
    gap.configs.remove(1);
    let no_group = Recovery { book: AddressBook { key: KEY, ..AddressBook::default() }, ..good.clone() };
    let other_key = Recovery { book: AddressBook { key: 9, ..good.book.clone() }, ..good.clone() };
    let nothing = Recovery { configs: Vec::new(), ..good.clone() };
    let with_book = |change: &dyn Fn(&mut AddressBook)| {
        let mut wrong = good.clone();
        change(&mut wrong.book);
        wrong
    };
    let far_version = with_book(&|book| book.version = u64::MAX - 1);
    let set = |book: &mut AddressBook, addresses| {
        book.groups.insert(GroupId(101), Registered::new(Incarnation(101_000), addresses));
    };
    let no_servers = with_book(&|book| set(book, Vec::new()));
    let long = with_book(&|book| set(book, vec!["x".repeat(1 << 20)]));
    let one = |config: Config| Recovery { configs: vec![Sealed::new(config)], ..good.clone() };
    let last = good.configs[2].config().as_ref().clone();
    // The next one would have a number that nobody can read.
    let far = one(Config { num: ConfigNum(ConfigNum::LIMIT.0 - 1), ..last.clone() });
    // A later build wrote a field into it.
    let mut later = good.clone();
    let bytes = later.configs.pop().expect("there is one").bytes().to_vec();
    let field = [&[1][..], &5_u16.to_le_bytes(), &0_u64.to_le_bytes()].concat();
    let bytes = [&bytes[..bytes.len() - 1], &field].concat();
    later.configs.push(Sealed::read(bytes.into()).expect("it can be read"));
    let mut clusters = good.clone();
    let other = Config { key: 9, before: clusters.configs[1].digest(), ..last };
    clusters.configs[2] = Sealed::new(other);
    // A group that left since: a lagging group may have to send it rows.
    let mut left = good.clone();
    changed(lost.change(leave([102], false)));
    left.configs = recovery(&lost, 0).configs;
    left.book.groups.remove(&GroupId(102));
    for wrong in
        [gap, no_group, other_key, nothing, far_version, no_servers, long, far, later, clusters, left]
    {
        let (cluster, verdict) = recovered(&wrong);
        assert!(matches!(verdict, Err(CtrlRefusal::NotRecovered(_))), "{verdict:?}");
        assert!(cluster.rows.0.is_empty());
    }
    assert!(recovered(&good).1.is_ok());
}
