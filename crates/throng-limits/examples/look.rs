#![allow(clippy::print_stdout, reason = "example")]
use throng_limits::{Tree, descriptors, sockets};
fn main() {
    let pid: u32 = std::env::args().nth(1).unwrap().parse().unwrap();
    let tree = Tree::live();
    let t = std::time::Instant::now();
    let count = descriptors::count(&tree, pid);
    println!("{count:?} {:?}", t.elapsed());
    let open = descriptors::descriptors(&tree, pid);
    println!("{:?}", t.elapsed());
    if let Ok(open) = &open { println!("{:?} {} deleted {:?} epolls {:?}", open.kinds.ranked(), open.numbers.len(), open.deleted, open.epolls); 
    println!("{:?}", t.elapsed()); 
        println!("{:?}", descriptors::watches(&tree, pid, open)); 
    println!("watches {:?}", t.elapsed());
 }
    let s = sockets::sockets(&tree, pid, open.as_ref().ok());
    println!("{:?}", t.elapsed());
    println!("{s:#?}");
}
