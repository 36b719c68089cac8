use super::*;

/// Cuts the power at one step.
struct CutAt {
    step: DiskStep,
    disk: Arc<Mutex<Option<MemoryDisk>>>,
}

impl DiskHook for CutAt {
    fn before(&self, step: DiskStep) -> BoxFuture<'static, ()> {
        if step == self.step {
            self.disk.lock().unwrap().as_ref().unwrap().power_cut();
        }
        futures::future::ready(()).boxed()
    }
}

fn cut_at(step: DiskStep) -> MemoryDisk {
    let place = Arc::default();
    let disk = MemoryDisk::with_hook(Box::new(CutAt { step, disk: Arc::clone(&place) }));
    *place.lock().unwrap() = Some(disk.clone());
    disk
}

fn put(key: &'static str) -> Batch {
    vec![Change::Put(Bytes::from_static(key.as_bytes()), Bytes::new())]
}

fn keys(table: &dyn Table) -> usize {
    table.scan(b"", None, ScanLimit { rows: usize::MAX, bytes: usize::MAX }).len()
}

#[tokio::test]
async fn a_power_cut_falls_before_or_after_a_save() {
    for (step, kept) in [(DiskStep::Save, 0), (DiskStep::Saved, 1)] {
        let disk = cut_at(step);
        let (mut log, _table) = disk.open();
        let hard_state = Some(HardState { term: crate::types::Term(1), vote: None });
        log.save(&Save { hard_state, ..Save::default() }).await;
        assert_eq!(disk.restored().hard_state.term.0, kept, "{step:?}");
    }
}

#[tokio::test]
async fn a_power_cut_falls_before_or_after_a_flush_and_a_switch() {
    for (step, kept) in [(DiskStep::Flush, 0), (DiskStep::Flushed, 1)] {
        let disk = cut_at(step);
        let (_log, table) = disk.open();
        table.write(put("a"));
        table.flush().await;
        assert_eq!(keys(&*disk.open().1), kept, "{step:?}");
    }
    for (step, installed) in [(DiskStep::Switch, None), (DiskStep::Switched, Some(EntryId::new(1, 1)))] {
        let disk = cut_at(step);
        let (_log, table) = disk.open();
        table.stage_start();
        table.switch(EntryId::new(1, 1)).await;
        assert_eq!(disk.open().1.installed(), installed, "{step:?}");
    }
}

#[tokio::test]
async fn the_mark_of_bad_rows_goes_with_the_switch_or_stays_with_the_rows() {
    for (step, bad) in [(DiskStep::Switch, true), (DiskStep::Switched, false)] {
        let disk = cut_at(step);
        let (_log, table) = disk.open();
        table.mark_bad().await;
        table.stage_start();
        table.switch(EntryId::new(1, 1)).await;
        assert_eq!(disk.open().1.is_bad(), bad, "{step:?}");
    }
}

#[tokio::test]
async fn what_a_zombie_writes_goes_nowhere() {
    let disk = MemoryDisk::new();
    let (mut log, table) = disk.open();
    let (_new_log, new_table) = disk.open();
    let entries = vec![Entry::new(EntryId::new(1, 1), crate::types::Payload::Empty)];
    log.save(&Save { entries, truncate_from: Some(Index(1)), ..Save::default() }).await;
    table.write(put("a"));
    table.flush().await;
    assert_eq!((disk.restored(), keys(&*new_table)), (Restored::default(), 0));
}

fn entries(term: u64, range: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    let entry = |index| Entry::new(EntryId::new(term, index), crate::types::Payload::Empty);
    range.map(entry).collect()
}

#[tokio::test]
async fn damage_takes_back_saves_and_keeps_term_vote_and_promise() {
    let vote = |term| Some(HardState { term: crate::types::Term(term), vote: Some(crate::types::NodeId(3)) });
    let saves = [
        Save { hard_state: vote(1), entries: entries(1, 1..=4), ..Save::default() },
        Save { marker: Some(EntryId::new(1, 2)), ..Save::default() },
        Save { entries: entries(1, 5..=6), ..Save::default() },
        Save {
            truncate_from: Some(Index(5)),
            entries: entries(2, 5..=5),
            hard_state: vote(2),
            ..Save::default()
        },
        Save { entries: entries(2, 6..=8), marker: Some(EntryId::new(1, 4)), ..Save::default() },
        Save {
            truncate_from: Some(Index(5)),
            marker: Some(EntryId::new(3, 20)),
            hard_state: vote(3),
            ..Save::default()
        },
        Save { entries: entries(3, 21..=21), ..Save::default() },
    ];
    for lost in 0..=saves.len() {
        let disk = MemoryDisk::new();
        let (mut log, _table) = disk.open();
        let mut states = vec![disk.restored()];
        for save in &saves {
            log.save(save).await;
            states.push(disk.restored());
        }
        disk.damage(lost);
        let (before, all) = (&states[saves.len() - lost], &states[saves.len()]);
        let expected =
            Restored { hard_state: all.hard_state, promised: EntryId::new(3, 21), ..before.clone() };
        assert_eq!(disk.restored(), expected, "{lost} saves lost");
        log.save(&saves[0]).await;
        assert_eq!(disk.restored(), expected, "a zombie writes nowhere");
    }
}

#[tokio::test]
async fn a_disk_that_is_set_back_knows_nothing_of_it() {
    let disk = MemoryDisk::new();
    let (mut log, table) = disk.open();
    log.save(&Save { entries: entries(1, 1..=4), ..Save::default() }).await;
    table.write(put("a"));
    table.flush().await;
    let (past, then) = (disk.past(), disk.restored());
    log.save(&Save { entries: entries(1, 5..=9), ..Save::default() }).await;
    table.write(put("b"));
    table.flush().await;
    disk.set_back(past);
    assert_eq!((disk.restored(), keys(&*disk.open().1)), (then, 1));
}
