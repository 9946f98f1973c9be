//! What is published, and how a copy of it is known again.

const MARK: &[u8] = b"\"load\":\"";
const DIGITS: usize = 8;
/// `{"load":"` and 16 digits, `","pad":"` and `"}`: no message is smaller.
pub(crate) const SIZE_MIN: usize = 9 + 2 * DIGITS + 9 + 2;

/// Makes the messages of one run and finds them in what arrives.
#[derive(Debug, Clone)]
pub(crate) struct Messages {
    /// Tells this run's messages from those of another one into the same channel.
    run: u32,
    channel: String,
    /// Where the mark was last found: in every push of a run at the same place.
    place: usize,
}

impl Messages {
    pub(crate) fn new(run: u32, channel: &str) -> Self {
        Self { run, channel: channel.to_owned(), place: 0 }
    }

    /// The data of a publication: JSON of `size` bytes, with its number in it.
    pub(crate) fn data(&self, number: u32, size: usize) -> String {
        let pad = "x".repeat(size.saturating_sub(SIZE_MIN));
        format!("{{\"load\":\"{:08x}{number:08x}\",\"pad\":\"{pad}\"}}", self.run)
    }

    /// A whole push as a server writes it, padded to `size` bytes.
    pub(crate) fn push(&self, number: u32, size: usize) -> String {
        let channel = quoted(&self.channel);
        let around = format!("{{\"push\":{{\"channel\":{channel},\"pub\":{{\"data\":}}}}}}").len();
        let data = self.data(number, size.saturating_sub(around));
        format!("{{\"push\":{{\"channel\":{channel},\"pub\":{{\"data\":{data}}}}}}}")
    }

    /// The body of the API request that publishes.
    pub(crate) fn publish_request(&self, number: u32, size: usize) -> String {
        let data = self.data(number, size);
        format!("{{\"channel\":{},\"data\":{data}}}", quoted(&self.channel))
    }

    /// The number of the publication in a push; `None` when it is not of this run.
    pub(crate) fn number(&mut self, push: impl AsRef<[u8]>) -> Option<u32> {
        let push = push.as_ref();
        if !push.get(self.place..).is_some_and(|rest| rest.starts_with(MARK)) {
            self.place = push.windows(MARK.len()).position(|window| window == MARK)?;
        }
        let digits = push.get(self.place + MARK.len()..)?.get(..2 * DIGITS)?;
        let (run, number) = digits.split_at(DIGITS);
        (hex(run)? == self.run).then(|| hex(number)).flatten()
    }
}

/// A string as JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn hex(digits: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_has_the_size_that_was_asked_for() {
        let messages = Messages::new(7, "news");
        for size in [SIZE_MIN, 100, 4000] {
            let data = messages.data(3, size);
            assert_eq!(data.len(), size);
            assert!(serde_json::from_str::<serde_json::Value>(&data).is_ok(), "{data}");
        }
        assert_eq!(messages.data(3, 0).len(), SIZE_MIN);
    }

    #[test]
    fn a_push_has_the_size_that_was_asked_for_and_its_number_in_it() {
        let mut messages = Messages::new(0xfeed, "ne\"ws");
        let push = messages.push(0x0102_0304, 160);
        assert_eq!(push.len(), 160);
        assert!(serde_json::from_str::<serde_json::Value>(&push).is_ok(), "{push}");
        assert_eq!(messages.number(&push), Some(0x0102_0304));
    }

    #[test]
    fn the_mark_is_found_wherever_it_stands() {
        let mut messages = Messages::new(1, "a");
        let data = messages.data(9, 60);
        for before in ["", "{\"channel\":\"longer\",\"pub\":"] {
            assert_eq!(messages.number(format!("{before}{data}")), Some(9));
        }
    }

    #[test]
    fn pushes_of_others_are_not_ours() {
        let mut ours = Messages::new(1, "a");
        assert_eq!(ours.number(Messages::new(2, "a").push(5, 100)), None);
        assert_eq!(ours.number("{\"push\":{\"channel\":\"a\",\"pub\":{\"data\":1}}}"), None);
        assert_eq!(ours.number("{\"load\":\"00"), None);
    }
}
