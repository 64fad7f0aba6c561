// What both versions of the client are asked to do; `main.rs` includes it in a module for each.

/// Runs every scenario.
pub(super) async fn all(server: &Server) {
    told("every QoS", every_qos(server)).await;
    told("a large message", large(server)).await;
    told("retained and removed", retained(server)).await;
    told("a session that is resumed", resumed(server)).await;
    told("a Will", a_will(server)).await;
    told("a shared subscription", shared(server)).await;
}

async fn told(name: &str, case: impl Future<Output = Result<(), Failed>>) {
    match tokio::time::timeout(SOON, case).await {
        Ok(Ok(())) => println!("ok {VERSION}, {name}"),
        Ok(Err(error)) => println!("not ok {VERSION}, {name}: {error}"),
        Err(_) => println!("not ok {VERSION}, {name}: not within {SOON:?}"),
    }
}

fn client(server: &Server, id: &str, keep: bool) -> (AsyncClient, EventLoop) {
    let mut options = options(server, &format!("{VERSION} {id}"), keep);
    options.set_transport(server.transport()).set_keep_alive(Duration::from_secs(30));
    patient(options)
}

/// Goes on until there is a packet that is wanted.
async fn until<T>(
    events: &mut EventLoop,
    wanted: impl Fn(&Packet) -> Option<T>,
) -> Result<T, Failed> {
    loop {
        if let Event::Incoming(packet) = events.poll().await?
            && let Some(found) = wanted(&packet)
        {
            return Ok(found);
        }
    }
}

async fn next(events: &mut EventLoop) -> Result<Publish, Failed> {
    until(events, |packet| match packet {
        Packet::Publish(publish) => Some(publish.clone()),
        _ => None,
    })
    .await
}

async fn subscribed(
    client: &AsyncClient,
    events: &mut EventLoop,
    filter: &str,
) -> Result<(), Failed> {
    client.subscribe(filter, QoS::ExactlyOnce).await?;
    until(events, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await
}

/// Publishes at QoS 1 and waits for the acknowledgement.
async fn published(
    client: &AsyncClient,
    events: &mut EventLoop,
    topic: &str,
    retain: bool,
    payload: &str,
) -> Result<(), Failed> {
    client.publish(topic, QoS::AtLeastOnce, retain, payload.as_bytes().to_vec()).await?;
    until(events, |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await
}

async fn every_qos(server: &Server) -> Result<(), Failed> {
    let (one, mut events) = client(server, "qos", false);
    subscribed(&one, &mut events, "rumqttc/qos/#").await?;
    for (name, qos) in [("0", QoS::AtMostOnce), ("1", QoS::AtLeastOnce), ("2", QoS::ExactlyOnce)] {
        for number in 0..20 {
            one.publish(format!("rumqttc/qos/{name}"), qos, false, vec![number]).await?;
        }
        for number in 0..20 {
            let message = next(&mut events).await?;
            same(&topic(&message), &format!("rumqttc/qos/{name}"))?;
            same(&(message.qos, &message.payload[..]), &(qos, &[number][..]))?;
        }
    }
    Ok(())
}

async fn large(server: &Server) -> Result<(), Failed> {
    let (one, mut events) = client(server, "large", false);
    subscribed(&one, &mut events, "rumqttc/large").await?;
    let payload: Vec<u8> = (0..=255).cycle().take(256_000).collect();
    one.publish("rumqttc/large", QoS::ExactlyOnce, false, payload.clone()).await?;
    let message = next(&mut events).await?;
    same(&(message.payload == payload), &true)
}

async fn retained(server: &Server) -> Result<(), Failed> {
    let (one, mut events) = client(server, "keeper", false);
    published(&one, &mut events, "rumqttc/kept", true, "kept").await?;
    let (other, mut others) = client(server, "late", false);
    subscribed(&other, &mut others, "rumqttc/kept").await?;
    let message = next(&mut others).await?;
    same(&(message.retain, &message.payload[..]), &(true, &b"kept"[..]))?;
    published(&one, &mut events, "rumqttc/kept", true, "").await?;
    same(&next(&mut others).await?.retain, &false)?;
    let (third, mut thirds) = client(server, "later", false);
    subscribed(&third, &mut thirds, "rumqttc/kept").await?;
    published(&third, &mut thirds, "rumqttc/kept", false, "the first there is").await?;
    same(&&next(&mut others).await?.payload[..], &&b"the first there is"[..])
}

async fn resumed(server: &Server) -> Result<(), Failed> {
    let (sub, mut events) = client(server, "roamer", true);
    subscribed(&sub, &mut events, "rumqttc/roam").await?;
    sub.disconnect().await?;
    while events.poll().await.is_ok() {}
    drop(events);
    let (publisher, mut publishing) = client(server, "sender", false);
    for number in 0..5 {
        published(&publisher, &mut publishing, "rumqttc/roam", false, &number.to_string()).await?;
    }
    let (again, mut events) = client(server, "roamer", true);
    let present = until(&mut events, |packet| match packet {
        Packet::ConnAck(connack) => Some(connack.session_present),
        _ => None,
    });
    same(&present.await?, &true)?;
    for number in 0..5 {
        same(&&next(&mut events).await?.payload[..], &number.to_string().as_bytes())?;
    }
    drop(again);
    Ok(())
}

async fn a_will(server: &Server) -> Result<(), Failed> {
    let (watcher, mut watching) = client(server, "watcher", false);
    let at = format!("rumqttc/will/{VERSION}");
    subscribed(&watcher, &mut watching, &at).await?;
    let mut options = options(server, &format!("{VERSION} mortal"), false);
    options.set_transport(server.transport()).set_last_will(will(&at));
    let (mortal, mut living) = patient(options);
    until(&mut living, |packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await?;
    drop((mortal, living));
    same(&&next(&mut watching).await?.payload[..], &&b"gone"[..])
}

async fn shared(server: &Server) -> Result<(), Failed> {
    let (one, mut ones) = client(server, "member 1", false);
    let (other, mut others) = client(server, "member 2", false);
    subscribed(&one, &mut ones, "$share/rumqttc/work").await?;
    subscribed(&other, &mut others, "$share/rumqttc/work").await?;
    let (publisher, mut publishing) = client(server, "boss", false);
    for number in 0..10 {
        published(&publisher, &mut publishing, "work", false, &number.to_string()).await?;
    }
    let mut got = Vec::new();
    while got.len() < 10 {
        let message = tokio::select! {
            message = next(&mut ones) => message?,
            message = next(&mut others) => message?,
        };
        got.push(String::from_utf8(message.payload.to_vec())?);
    }
    got.sort();
    let wanted: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    same(&got, &wanted)
}
