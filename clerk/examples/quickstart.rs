//! A client in one page: put, append, get, and a put on condition.
//!
//! Start a cluster, and name its controllers, which `bin/clerk status` lists:
//!
//! ```text
//! bin/clerk up
//! cargo run -p clerk --example quickstart -- 127.0.0.1:PORT,127.0.0.1:PORT,127.0.0.1:PORT
//! ```

use clerk::{Clerk, Error, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let controllers = std::env::args().nth(1).ok_or("name the controllers: HOST:PORT,HOST:PORT,...")?;
    let controllers = controllers.split(',').map(str::to_owned).collect();
    let clerk = Clerk::connect(controllers, Options::default()).await?;

    // Exactly once each, whatever is lost or repeated on the way.
    clerk.put("greeting", "hello").await?;
    let version = clerk.append("greeting", ", world").await?;

    let got = clerk.get("greeting").await?;
    println!("version {}: {:?}", got.version, got.value);
    assert_eq!((got.version, got.value.as_deref()), (version, Some(&b"hello, world"[..])));

    // Versions grow with every write, so a put that names one cannot overwrite what it has not seen.
    clerk.put_if("greeting", "good evening", version).await?;
    match clerk.put_if("greeting", "good night", version).await {
        Err(Error::VersionMismatch { version }) => println!("somebody was faster: version {version}"),
        other => return Err(format!("the condition was not looked at: {other:?}").into()),
    }
    Ok(())
}
