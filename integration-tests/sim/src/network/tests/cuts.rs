//! Servers that are cut from one another.

use super::*;

/// The pairs among `names` whose end is enabled.
fn enabled(network: &Network, names: &[Name]) -> BTreeSet<(usize, usize)> {
    let all = (0..names.len()).flat_map(|from| (0..names.len()).map(move |to| (from, to)));
    all.filter(|(from, to)| network.is_enabled(&names[*from], &names[*to])).collect()
}

#[test]
fn cut_servers_stay_cut_from_one_another_until_each_is_connected() {
    play(|_, network, _| async move {
        let servers: Vec<Name> = ["1.1", "1.2", "1.3"].map(Name::from).to_vec();
        let client: Name = "client".into();
        let all = enabled(&network, &servers);
        assert_eq!(all.len(), 9);
        network.link(&client, &servers[2], false);
        network.disconnect(&servers[0], &servers);
        network.disconnect(&servers[1], &servers);
        assert_eq!(enabled(&network, &servers), [(2, 2)].into());
        assert!(!network.is_connected(&servers[0]) && network.is_connected(&servers[2]));
        network.connect(&servers[0], &servers);
        assert_eq!(enabled(&network, &servers), [(0, 0), (0, 2), (2, 0), (2, 2)].into());
        network.connect(&servers[1], &servers);
        assert_eq!(enabled(&network, &servers), all);
        // Clients' ends were left alone.
        assert!(network.is_enabled(&client, &servers[0]) && !network.is_enabled(&client, &servers[2]));
        network.disconnect(&servers[1], &servers);
        network.heal();
        assert!(network.is_connected(&servers[1]) && network.is_enabled(&client, &servers[2]));
        assert_eq!(enabled(&network, &servers), all);
        Ok(())
    });
}

#[test]
fn partitions_cut_servers_and_leave_clients_alone() {
    play(|_, network, _| async move {
        let servers: Vec<Name> = ["1.1", "1.2", "1.3", "1.4", "1.5"].map(Name::from).to_vec();
        let client: Name = "client".into();
        network.link(&client, &servers[0], false);
        let (majority, minority) = majority_without(&servers[1], &servers);
        assert_eq!(majority, [0, 2, 3].map(|at: usize| servers[at].clone()));
        assert_eq!(minority, [4, 1].map(|at: usize| servers[at].clone()));
        network.partition(&majority, &minority);
        let sides = |(from, to): &(usize, usize)| [1, 4].contains(from) == [1, 4].contains(to);
        let all = (0..5).flat_map(|from| (0..5).map(move |to| (from, to)));
        assert_eq!(enabled(&network, &servers), all.filter(sides).collect());
        // The next partition undoes the last one within its sides.
        network.partition(&servers[..4], &servers[4..]);
        assert_eq!(enabled(&network, &servers).len(), 17);
        network.partition(&servers, &[]);
        assert_eq!(enabled(&network, &servers).len(), 25);
        assert!(!network.is_enabled(&client, &servers[0]) && network.is_enabled(&client, &servers[1]));
        let three = majority_without(&servers[0], &servers[..3]);
        assert_eq!((three.0.len(), three.1), (2, vec![servers[0].clone()]));
        Ok(())
    });
}
