//! A Redis that runs what the store sends: its own scripts, over the commands that they call, with its own
//! clock; and the HTTP front before it.

use std::collections::BTreeMap;

use callback_guard_core::store::redis::Protocol;
use serde_json::json;

use crate::lua::{self, Value};

/// The keys of a Redis, with their ends.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Redis {
    keys: BTreeMap<String, (Data, Option<u64>)>,
}

#[derive(Clone, Debug, Hash)]
enum Data {
    Text(String),
    /// Members of a sorted set, with their scores.
    Set(BTreeMap<String, u64>),
}

/// The words of a request, in whatever form the front takes them.
pub(crate) fn words(protocol: Protocol, body: &str) -> Vec<String> {
    match protocol {
        Protocol::Upstash => serde_json::from_str(body).unwrap(),
        Protocol::Webdis => body.split('/').map(percent_decode).collect(),
    }
}

fn percent_decode(text: &str) -> String {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap().as_bytes().to_vec();
    for piece in pieces {
        let (digits, plain) = piece.split_at(2);
        bytes.push(u8::from_str_radix(digits, 16).unwrap());
        bytes.extend_from_slice(plain.as_bytes());
    }
    String::from_utf8(bytes).unwrap()
}

impl Redis {
    /// What the front answers to a request with these [`words`], with 200.
    pub(crate) fn answer(&mut self, protocol: Protocol, words: &[String], now: u64) -> Vec<u8> {
        let name = match protocol {
            Protocol::Upstash => "result",
            Protocol::Webdis => "EVAL",
        };
        let reply = match self.eval(words, now) {
            Value::False => serde_json::Value::Null,
            Value::Number(number) => json!(number as i64),
            Value::Text(text) => json!(text),
            Value::List(_) => panic!("no script answers a list"),
        };
        json!({ name: reply }).to_string().into_bytes()
    }

    #[track_caller]
    fn eval(&mut self, words: &[String], now: u64) -> Value {
        let [command, script, count, rest @ ..] = words else {
            panic!("{words:?}")
        };
        assert_eq!(command, "EVAL");
        let (keys, arguments) = rest.split_at(count.parse().unwrap());
        let mut call = |words: &[String]| self.command(words, now);
        lua::run(script, keys, arguments, &mut call)
    }

    /// The text of a key, and its end.
    pub(crate) fn text(&self, key: &str, now: u64) -> Option<(&str, u64)> {
        match self.keys.get(key)? {
            (Data::Text(text), Some(end)) if *end > now => Some((text, *end)),
            _ => None,
        }
    }

    /// How many of its keys never end: there should be none.
    pub(crate) fn endless(&self) -> usize {
        let is_endless = |(_, end): &&(Data, Option<u64>)| end.is_none();
        self.keys.values().filter(is_endless).count()
    }

    fn command(&mut self, words: &[String], now: u64) -> Value {
        self.keys
            .retain(|_, (_, end)| end.is_none_or(|end| end > now));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let number = |text: &str| -> u64 { text.parse().expect("milliseconds") };
        let count = |count: usize| Value::Number(count as f64);
        match words[..] {
            ["GET", key] => match self.keys.get(key) {
                None => Value::False,
                Some((Data::Text(text), _)) => Value::Text(text.clone()),
                Some((Data::Set(_), _)) => panic!("WRONGTYPE {key}"),
            },
            ["SET", key, value, "PX", end] => {
                let data = Data::Text(value.to_owned());
                let end = now + number(end);
                self.keys.insert(key.to_owned(), (data, Some(end)));
                Value::Text("OK".to_owned())
            }
            ["SET", key, value] => {
                let data = Data::Text(value.to_owned());
                self.keys.insert(key.to_owned(), (data, None));
                Value::Text("OK".to_owned())
            }
            ["DEL", key] => count(self.keys.remove(key).map_or(0, |_| 1)),
            ["TIME"] => Value::List(vec![
                Value::Text((now / 1000).to_string()),
                Value::Text((now % 1000 * 1000).to_string()),
            ]),
            ["ZADD", key, score, member] => {
                let new = || (Data::Set(BTreeMap::new()), None);
                let set = self.keys.entry(key.to_owned()).or_insert_with(new);
                let (Data::Set(members), _) = set else {
                    panic!("WRONGTYPE {key}")
                };
                let old = members.insert(member.to_owned(), number(score));
                count(usize::from(old.is_none()))
            }
            ["ZCARD", key] => count(self.members(key).map_or(0, |members| members.len())),
            ["ZREM", key, member] => {
                let old = self.members(key).and_then(|members| members.remove(member));
                self.drop_empty(key);
                count(usize::from(old.is_some()))
            }
            ["ZREMRANGEBYSCORE", key, "-inf", most] => {
                let most = number(most);
                if let Some(members) = self.members(key) {
                    members.retain(|_, score| *score > most);
                }
                self.drop_empty(key);
                Value::Number(0.0)
            }
            ["PTTL", key] => Value::Number(match self.keys.get(key) {
                None => -2.0,
                Some((_, None)) => -1.0,
                Some((_, Some(end))) => (end - now) as f64,
            }),
            ["PEXPIRE", key, millis] => {
                let end = now + number(millis);
                let known = self.keys.get_mut(key);
                count(known.map_or(0, |(_, old)| {
                    *old = Some(end);
                    1
                }))
            }
            _ => panic!("no command {words:?}"),
        }
    }

    fn members(&mut self, key: &str) -> Option<&mut BTreeMap<String, u64>> {
        match self.keys.get_mut(key)? {
            (Data::Set(members), _) => Some(members),
            (Data::Text(_), _) => panic!("WRONGTYPE {key}"),
        }
    }

    fn drop_empty(&mut self, key: &str) {
        if self.members(key).is_some_and(|members| members.is_empty()) {
            self.keys.remove(key);
        }
    }
}
