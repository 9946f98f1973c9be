//! Who takes patches notices nothing of a move.

use super::property::{settings, token};
use super::world::{World, runtime};
use crate::session::Kind;

/// What the last of the client's publications says.
fn last(world: &World, client: usize) -> String {
    let told = world.clients[client].told();
    told.rsplit_once("{\"push\"").map(|(_, last)| last.to_owned()).unwrap()
}

fn publish(world: &mut World, number: u32) {
    let document = format!(r#"{{"number":{number},"rest":"{}"}}"#, "long ".repeat(40));
    world.publish("diff:document", &document, None);
    world.settle();
}

#[test]
fn patches_go_on_where_they_were_whether_it_went_ahead_or_not() {
    let (settings, runtime) = (settings(), runtime());
    for goes_ahead in [false, true] {
        let mut world = World::new(&settings, 2, &runtime);
        for (client, wish) in [(0, ""), (1, r#","delta":"fossil""#), (2, r#","delta":"fossil""#)] {
            world.join(Kind::Bidirectional);
            let token = token(&format!("user{client}"));
            world.say(client, &format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#), None);
            let text = format!(r#"{{"id":2,"subscribe":{{"channel":"diff:document"{wish}}}}}"#);
            world.say(client, &text, None);
            world.settle();
        }
        if goes_ahead {
            // The first publication comes after they were told of.
            world.go_ahead(3);
        }
        publish(&mut world, 1);
        assert!(last(&world, 1).contains(r#""data":"{\"number\":1"#));
        let mut world = world.move_to(3);
        publish(&mut world, 2);
        assert!(last(&world, 0).contains(r#""data":{"number":2"#), "{}", last(&world, 0));
        for client in [1, 2] {
            let last = last(&world, client);
            assert!(last.contains(r#""delta":true"#), "{last}");
        }
    }
}
