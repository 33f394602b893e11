self.addEventListener("message",e=>{let{id:s,milliseconds:t}=e.data;setTimeout(()=>postMessage(s),t)});
