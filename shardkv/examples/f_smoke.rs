#![allow(missing_docs)]
use std::{collections::*, process::*, sync::Arc, time::*};
use clerk::{api::{*, config::*, ctrl::*, kv::*}, connection::*, ctrl::CtrlClerk, kv::Clerk};
fn main() { tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()) }
async fn run() {
    let bin = std::env::var("CARGO_TARGET_DIR").unwrap() + "/debug/";
    let dir = "/tmp/f-cluster"; let _ = std::fs::remove_dir_all(dir); std::fs::create_dir_all(dir).unwrap();
    let mut kids: Vec<Child> = vec![];
    let ctrl = "127.0.0.1:46001".to_string();
    kids.push(Command::new(bin.clone()+"shardctrler").args(["--cluster","f","--id","1","--members",&format!("1={ctrl}"),"--listen",&ctrl,"--data-dir",&format!("{dir}/ctrl"),"--new","--shards","16"]).spawn().unwrap());
    let mut addrs = BTreeMap::new();
    for (g, n) in [(101u64,3u64),(102,3)] {
        let a: Vec<String> = (1..=n).map(|i| format!("127.0.0.1:{}", 46000 + (g-100)*10 + i)).collect();
        let m = a.iter().enumerate().map(|(i,a)| format!("{}={a}", i+1)).collect::<Vec<_>>().join(",");
        for i in 1..=n {
            kids.push(Command::new(bin.clone()+"shardkv").args(["--cluster","f","--group",&g.to_string(),"--id",&i.to_string(),"--members",&m,"--listen",&a[i as usize-1],"--controllers",&ctrl,"--data-dir",&format!("{dir}/{g}.{i}"),"--new"]).spawn().unwrap());
        }
        addrs.insert(GroupId(g), a);
    }
    let conn: Arc<dyn Connection> = Arc::new(TarpcConnection::new(Options::of("f")));
    let status = |g: GroupId| { let (conn, addrs) = (conn.clone(), addrs.clone()); async move {
        let mut out = vec![];
        for a in &addrs[&g] { if let Ok(Ok(KvReply::Status(s))) = conn.kv(a, g, KvRequest::Status, Duration::from_secs(1)).await { out.push(*s); } } out } };
    let cc = CtrlClerk::new(conn.clone(), vec![ctrl.clone()], 1);
    let t = Instant::now();
    let mut inc = BTreeMap::new();
    while inc.len() < 2 { for g in [GroupId(101), GroupId(102)] { for s in status(g).await { if let Some(i) = s.incarnation { inc.insert(g, i); } } } tokio::time::sleep(Duration::from_millis(50)).await; }
    println!("up after {:?}", t.elapsed());
    let join = |g: GroupId| Change::Join(BTreeMap::from([(g, NewGroup { incarnation: inc[&g], addresses: addrs[&g].clone() })]));
    let settled = |num: ConfigNum| { let status = &status; async move { let t = Instant::now(); loop {
        let mut ok = true; for g in [GroupId(101), GroupId(102)] { let s = status(g).await; ok &= s.iter().any(|s| s.replica.role == clerk::api::status::Role::Leader && s.settled && s.config >= num); }
        if ok { println!("settled {num} after {:?}", t.elapsed()); return; } if t.elapsed() > Duration::from_secs(60) { for g in [GroupId(101), GroupId(102)] { println!("{:?}", status(g).await); } panic!("not settled"); } tokio::time::sleep(Duration::from_millis(20)).await; } } };
    let c = cc.change(join(GroupId(101))).await.unwrap(); println!("{c:?}"); settled(c.config).await;
    let kv = Clerk::new(conn.clone(), vec![ctrl.clone()], clerk::kv::Options { seed: 3, deadline: Duration::from_secs(10), sessions: true });
    let t = Instant::now(); let n = 200; for i in 0..n { kv.put(format!("s{i}"), "v").await.unwrap(); } println!("1 client: {:?} a put", t.elapsed()/n);
    let t = Instant::now(); for i in 0..n { kv.get(format!("s{i}")).await.unwrap(); } println!("1 client: {:?} a get", t.elapsed()/n);
    let t = Instant::now(); let mut set = tokio::task::JoinSet::new();
    for c in 0..64 { let kv = kv.clone(); set.spawn(async move { for i in 0..300 { kv.put(format!("k{}", c*300+i), vec![b'x'; 256]).await.unwrap(); } }); }
    while let Some(r) = set.join_next().await { r.unwrap(); } println!("64 clients: {:.0} put/s", 19200.0/t.elapsed().as_secs_f64());
    let t = Instant::now(); let mut set = tokio::task::JoinSet::new();
    for c in 0..64 { let kv = kv.clone(); set.spawn(async move { for i in 0..300 { kv.get(format!("k{}", c*300+i)).await.unwrap(); } }); }
    while let Some(r) = set.join_next().await { r.unwrap(); } println!("64 clients: {:.0} get/s", 19200.0/t.elapsed().as_secs_f64());
    let t = Instant::now(); let mut set = tokio::task::JoinSet::new();
    for c in 0..16 { let kv = kv.clone(); set.spawn(async move { for i in 0..64 { kv.put(format!("big{}", c*64+i), vec![b'y'; 128*1024]).await.unwrap(); } }); }
    while let Some(r) = set.join_next().await { r.unwrap(); } println!("128 MiB loaded in {:?}", t.elapsed());
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (kv2, stop2) = (kv.clone(), stop.clone());
    let load = tokio::spawn(async move { let (mut n, mut max, mut err) = (0u64, Duration::ZERO, 0); while !stop2.load(std::sync::atomic::Ordering::Relaxed) { let t = Instant::now(); match kv2.append(format!("a{}", n % 50), format!("[{n}]")).await { Ok(_) => {} Err(e) => { err += 1; println!("{e:?}"); } } max = max.max(t.elapsed()); n += 1; } (n, max, err) });
    let c = cc.change(join(GroupId(102))).await.unwrap(); println!("{} moves", c.moves.len()); settled(c.config).await;
    println!("kill -9 a leader"); 
    let s = status(GroupId(102)).await; let l = s.iter().find(|s| s.replica.role == clerk::api::status::Role::Leader).unwrap();
    let pid = l.replica.pid; let id = l.replica.id; Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    let c = cc.change(Change::Leave { groups: BTreeSet::from([GroupId(101)]), force: false }).await.unwrap(); println!("{} moves", c.moves.len()); settled(c.config).await;
    let c = cc.change(join(GroupId(101))).await.unwrap(); println!("{} moves", c.moves.len()); settled(c.config).await;
    let a = &addrs[&GroupId(102)]; let m = a.iter().enumerate().map(|(i,a)| format!("{}={a}", i+1)).collect::<Vec<_>>().join(",");
    kids.push(Command::new(bin.clone()+"shardkv").args(["--cluster","f","--group","102","--id",&id.to_string(),"--members",&m,"--listen",&a[id as usize-1],"--controllers",&ctrl,"--data-dir",&format!("{dir}/102.{id}")]).spawn().unwrap());
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (appends, max, err) = load.await.unwrap(); println!("{appends} appends, longest {max:?}, errors {err}");
    let mut all = 0; for i in 0..50u64 { let v = kv.get(format!("a{i}")).await.unwrap().value.unwrap(); let mine: String = (0..appends).filter(|n| n % 50 == i).map(|n| format!("[{n}]")).collect(); assert_eq!(v, mine.as_bytes()); all += 1; }
    for i in 0..19200 { assert_eq!(kv.get(format!("k{i}")).await.unwrap().value.unwrap().len(), 256); }
    for i in 0..1024 { assert_eq!(kv.get(format!("big{i}")).await.unwrap().value.unwrap().len(), 128*1024); }
    println!("verified {all}");
    for g in [GroupId(101), GroupId(102)] { for s in status(g).await { println!("{g}.{} pid {} applied {} hash {:x} log {} syncs {} shards {}", s.replica.id, s.replica.pid, s.replica.applied, s.replica.table_hash, s.replica.log_bytes, s.replica.wal_syncs, s.shards.len());
      let rss = std::fs::read_to_string(format!("/proc/{}/status", s.replica.pid)).unwrap(); println!("   {}", rss.lines().find(|l| l.starts_with("VmHWM")).unwrap()); } }
    for k in &mut kids { let _ = Command::new("kill").arg(k.id().to_string()).status(); }
    let t = Instant::now(); for k in &mut kids { println!("{:?}", k.wait().unwrap()); } println!("stopped in {:?}", t.elapsed());
}
