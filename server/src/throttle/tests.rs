use super::*;

fn throttle(change: impl FnOnce(&mut Rates)) -> Arc<Throttle> {
    let mut rates = Rates::default();
    change(&mut rates);
    Throttle::new(rates)
}

fn visitor(throttle: &Arc<Throttle>, address: &str) -> Visitor {
    throttle.admit(address.parse().unwrap()).unwrap()
}

fn target(name: &str) -> Target {
    Target::nobody(Some(name))
}

#[tokio::test(start_paused = true)]
async fn an_address_has_so_many_connections() {
    let throttle = throttle(|rates| rates.connections_per_address_max = 2);
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let first = throttle.admit(address);
    let _second = throttle.admit(address).unwrap();
    assert!(throttle.admit(address).is_none());
    // The same one, written otherwise.
    assert!(throttle.admit("::ffff:192.0.2.1".parse().unwrap()).is_none());
    assert!(throttle.admit("192.0.2.2".parse().unwrap()).is_some());
    drop(first);
    assert!(throttle.admit(address).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_customer_has_many_addresses_and_counts_as_one() {
    let throttle = throttle(|rates| rates.connections_per_address_max = 1);
    let _first = visitor(&throttle, "2001:db8:1:2::1");
    assert!(throttle.admit("2001:db8:1:2:ffff::2".parse().unwrap()).is_none());
    assert!(throttle.admit("2001:db8:1:3::1".parse().unwrap()).is_some());
}

#[tokio::test(start_paused = true)]
async fn shared_addresses_are_exempt() {
    let throttle = throttle(|rates| {
        rates.connections_per_address_max = 0;
        rates.address_requests = Rate::per_second(1, 1);
        rates.address_registrations = Rate::per_hour(1, 1);
        rates.address_failures.free = 0;
    });
    let local = visitor(&throttle, "127.0.0.1");
    for n in 0..10 {
        assert_eq!(local.request(), Ok(Duration::ZERO));
        assert_eq!(local.register(), Ok(()));
        assert!(local.try_password(target(&n.to_string())).is_ok());
    }
    assert!(throttle.admit("10.0.0.1".parse().unwrap()).is_none());
}

#[tokio::test(start_paused = true)]
async fn one_address_does_not_pay_for_another() {
    let throttle = throttle(|rates| {
        rates.address_requests = Rate::per_second(10, 2);
        rates.address_registrations = Rate::per_hour(1, 1);
    });
    let (one, same, other) =
        (visitor(&throttle, "192.0.2.1"), visitor(&throttle, "192.0.2.1"), visitor(&throttle, "192.0.2.2"));
    assert_eq!((one.request(), same.request()), (Ok(Duration::ZERO), Ok(Duration::ZERO)));
    assert_eq!(one.request(), Ok(Duration::from_millis(100)));
    assert_eq!(same.request(), Ok(Duration::from_millis(200)));
    assert_eq!(other.request(), Ok(Duration::ZERO));
    assert_eq!(one.register(), Ok(()));
    assert_eq!(same.register(), Err(Duration::from_secs(3600)));
    assert_eq!(other.register(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn failures_cost_more_and_more_and_are_forgotten() {
    let throttle = throttle(|rates| rates.account_failures.free = 2);
    let visitor = visitor(&throttle, "127.0.0.1");
    let mut waits = Vec::new();
    for _ in 0..10 {
        match visitor.try_password(target("alice")) {
            Ok(_) => waits.push(0),
            Err(wait) => {
                waits.push(wait.as_secs());
                tokio::time::advance(wait).await;
                visitor.try_password(target("alice")).map(drop).unwrap();
            }
        }
    }
    assert_eq!(waits, [0, 0, 0, 1, 2, 4, 8, 16, 32, 60]);
    assert!(visitor.try_password(target("bob")).is_ok(), "nobody else waits");
    tokio::time::advance(Duration::from_secs(15 * 60)).await;
    assert!((0..3).all(|_| visitor.try_password(target("alice")).is_ok()));
    assert!(visitor.try_password(target("alice")).is_err());
}

#[tokio::test(start_paused = true)]
async fn attempts_at_once_count_until_they_succeed() {
    let throttle = throttle(|rates| rates.account_failures.free = 2);
    let visitor = visitor(&throttle, "127.0.0.1");
    let attempts: Vec<Attempt> = (0..3).map(|_| visitor.try_password(target("alice")).unwrap()).collect();
    assert!(visitor.try_password(target("alice")).is_err());
    attempts.into_iter().for_each(Attempt::succeeded);
    assert!(visitor.try_password(target("alice")).is_ok());
}

/// Whoever has an account can succeed at will: that must not buy more attempts at others.
#[tokio::test(start_paused = true)]
async fn a_success_does_not_clear_the_address() {
    let throttle = throttle(|rates| rates.address_failures.free = 2);
    let visitor = visitor(&throttle, "192.0.2.1");
    for n in 0..2 {
        visitor.try_password(target(&format!("victim {n}"))).map(drop).unwrap();
        visitor.try_password(target("own")).unwrap().succeeded();
    }
    visitor.try_password(target("victim 3")).map(drop).unwrap();
    assert!(visitor.try_password(target("victim 4")).is_err());
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_decided_counts_for_nothing() {
    let throttle = throttle(|rates| {
        rates.account_failures.free = 0;
        rates.address_failures.free = 0;
    });
    let visitor = visitor(&throttle, "192.0.2.1");
    for _ in 0..5 {
        visitor.try_password(target("alice")).unwrap().undecided();
    }
}

#[tokio::test(start_paused = true)]
async fn to_ask_whether_one_may_register_costs_nothing() {
    let throttle = throttle(|rates| rates.address_registrations = Rate::per_hour(1, 1));
    let visitor = visitor(&throttle, "192.0.2.1");
    for _ in 0..5 {
        visitor.may_register().unwrap();
    }
    visitor.register().unwrap();
    let hour = Duration::from_secs(3600);
    assert_eq!((visitor.may_register(), visitor.register()), (Err(hour), Err(hour)));
    tokio::time::advance(hour).await;
    assert_eq!((visitor.may_register(), visitor.register()), (Ok(()), Ok(())));
}

/// Whoever asks and goes, again and again, does not make the others of the address wait for ever.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let throttle = throttle(|rates| rates.address_requests = Rate::per_second(10, 1));
    let (waits, refusals): (Vec<_>, Vec<_>) =
        (0..1000).map(|_| visitor(&throttle, "192.0.2.1").request()).partition(Result::is_ok);
    assert_eq!((waits.len(), refusals.len()), (51, 949));
    assert_eq!(visitor(&throttle, "192.0.2.1").request(), Err(Duration::from_millis(5100)));
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(visitor(&throttle, "192.0.2.1").request(), Ok(Duration::ZERO));
}

/// Memory is bounded, and connections are never forgotten.
#[tokio::test(start_paused = true)]
async fn so_many_are_remembered() {
    let throttle = throttle(|rates| rates.connections_per_address_max = 1);
    let first = visitor(&throttle, "192.0.2.1");
    first.request().unwrap();
    for n in 0..(REMEMBERED_MAX as u32 + 10) {
        visitor(&throttle, &std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string()).request().unwrap();
    }
    assert_eq!(lock(&throttle.addresses).len(), REMEMBERED_MAX);
    assert!(throttle.admit("192.0.2.1".parse().unwrap()).is_none());
}
